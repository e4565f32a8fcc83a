// The weaved layout: every bit of a code in a plane of its own (docs/format.md). A reader at
// precision k holds the k highest base planes, highest first, and the sample planes of k behind them;
// the stored code is the base times the samples, plus the bits of the sample planes.
//
// Within a plane, bits lie as the packed layout has them for one stored bit.
#pragma once

#include "isa.hpp"
#include "layout.hpp"

namespace zipml {
namespace ZIPML_ISA {

// Planes of one chunk at one precision, from the start of a tile on.
struct WovenTile {
  const uint8_t* bytes;
  size_t plane_bytes;  // from plane to plane
  int bits, samples;   // base planes and sample planes

  ZIPML_INLINE const uint8_t* base(int bit) const {
    return bytes + static_cast<size_t>(bits - 1 - bit) * plane_bytes;
  }
  ZIPML_INLINE const uint8_t* sample(int s) const {
    return bytes + static_cast<size_t>(bits + s) * plane_bytes;
  }
};

ZIPML_INLINE WovenTile woven_tile(const uint8_t* codes, size_t chunk_rows, size_t tile, size_t columns,
                                  int stored_bits, int samples) {
  return {codes + tile_offset(tile, columns, 1), codes_size(chunk_rows, columns, 1), stored_bits - samples, samples};
}

// Visits the planes such that bits of one byte can be put together by "or": f(plane, which, shift,
// first), where `which` is 0 for the low byte, 1 for bits from the ninth on, 2 for what is to be
// added to both, and `first` says that nothing of that byte was visited before.
template <class F>
ZIPML_INLINE void for_each_plane(const WovenTile& t, F&& f) {
  const int up = t.samples - 1;
  if (up) f(t.sample(0), 0, 0, true);
  for (int bit = 0; bit < t.bits; ++bit) {
    if (bit + up < 8) {
      f(t.base(bit), 0, bit + up, bit + up == 0);
    } else {
      f(t.base(bit), 1, 0, true);
    }
  }
  f(t.sample(up), 2, 0, true);
}

// Adds bits to codes of which the ninth bit and those above it lie apart.
ZIPML_INLINE void add_bits(const uint8_t* bits, size_t count, uint8_t* low, uint8_t* ninth) {
  for (size_t i = 0; i < count; ++i) {
    const unsigned sum = static_cast<unsigned>(low[i]) + bits[i];
    low[i] = static_cast<uint8_t>(sum);
    ninth[i] = static_cast<uint8_t>(ninth[i] + (sum >> 8));
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
