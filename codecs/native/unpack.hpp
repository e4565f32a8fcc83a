// Packed codes to bytes, one byte a code: row after row for 16 columns at once, down one column, or
// across one row. layout.hpp says where the codes lie.
//
// A code of nine bits (8 bits, two samples) does not fit a byte: its ninth bit goes to a second
// plane of bytes. Who has at most eight may leave that plane alone.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core.hpp"
#include "isa.hpp"
#include "layout.hpp"
#include "line.hpp"
#include "weave.hpp"

// A lambda that is not inlined would be a weak symbol (see isa.hpp).
#define ZIPML_LAMBDA __attribute__((always_inline))

namespace zipml {
namespace ZIPML_ISA {

// The 64 rows of 16 columns.
struct CodeBlock {
  alignas(64) uint8_t low[kTileRows][kLanes];
  alignas(64) uint8_t ninth[kTileRows][kLanes];
};

// Where the codes of one tile lie.
struct TileBytes {
  const uint8_t* bytes;
  size_t slots, columns;
  int stored_bits;
  WovenTile woven;  // samples: 0 if the layout is packed
};

ZIPML_INLINE TileBytes tile_bytes(const uint8_t* codes, size_t chunk_rows, size_t tile,
                                  size_t columns, CodeSpec spec) {
  const int stored_bits = spec.stored_bits();
  WovenTile woven{};
  if (spec.woven) woven = woven_tile(codes, chunk_rows, tile, columns, stored_bits, spec.samples);
  return {codes + tile_offset(tile, columns, stored_bits),
          slots_in_tile(rows_in_tile(chunk_rows, tile)), columns, stored_bits, woven};
}

// Transposes 16 x 16 bytes: `in` holds `size` (at most 16) bytes of each of 16 columns, `pitch`
// apart; what is not there reads as anything.
ZIPML_INLINE void transpose(const uint8_t* in, size_t pitch, size_t size, Codes out[16]) {
#if defined(__SSE2__)
  __m128i a[16], b[16];
  for (size_t c = 0; c < 16; ++c) {
    if (size >= 16) {
      a[c] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + c * pitch));
    } else if (size == 8) {
      a[c] = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + c * pitch));
    } else {
      alignas(16) uint8_t some[16] = {};
      std::memcpy(some, in + c * pitch, size);
      a[c] = _mm_load_si128(reinterpret_cast<const __m128i*>(some));
    }
  }
  // Four times the perfect shuffle of both halves: each moves one bit of the address of a byte
  // from its place within the vector to the number of the vector.
  for (size_t i = 0; i < 8; ++i) {
    b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
    b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
  }
  for (size_t i = 0; i < 8; ++i) {
    a[2 * i] = _mm_unpacklo_epi8(b[i], b[i + 8]);
    a[2 * i + 1] = _mm_unpackhi_epi8(b[i], b[i + 8]);
  }
  for (size_t i = 0; i < 8; ++i) {
    b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
    b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
  }
  for (size_t i = 0; i < 8; ++i) {
    a[2 * i] = _mm_unpacklo_epi8(b[i], b[i + 8]);
    a[2 * i + 1] = _mm_unpackhi_epi8(b[i], b[i + 8]);
  }
  for (size_t k = 0; k < 16; ++k) out[k] = (Codes)a[k];
#else
  for (size_t c = 0; c < 16; ++c) {
    for (size_t k = 0; k < size; ++k) out[k][c] = in[c * pitch + k];
  }
#endif
}

// Digit `i` of every byte, moved up by `shift`. Bytes are shifted in pairs, as processors can.
template <int Width>
ZIPML_INLINE Codes digits(Codes packed, int i, int shift) {
  typedef uint16_t Pairs __attribute__((vector_size(kLanes)));
  const Codes mask = static_cast<uint8_t>((1u << Width) - 1) - Codes{};
  const Codes cut = Width == 8 ? packed : (Codes)((Pairs)packed >> (i * Width)) & mask;
  return shift == 0 ? cut : (Codes)((Pairs)cut << shift);
}

// The packed bytes are transposed, each of which holds the codes of 8 / Width rows, and cut into
// digits after that: fewer bytes to move.
template <int Width>
ZIPML_INLINE void rows_of_field(const uint8_t* in, size_t bytes, int shift, bool first,
                                uint8_t (*out)[kLanes]) {
  Codes packed[16];
  for (size_t k0 = 0; k0 < bytes; k0 += 16) {
    const size_t size = least<size_t>(16, bytes - k0);
    transpose(in + k0, bytes, size, packed);
#pragma GCC unroll 16
    for (size_t k = 0; k < size; ++k) {
#pragma GCC unroll 8
      for (size_t i = 0; i < 8 / Width; ++i) {
        uint8_t* row = out[i * bytes + k0 + k];
        Codes code = digits<Width>(packed[k], static_cast<int>(i), shift);
        if (!first) code |= load_codes(row);
        std::memcpy(row, &code, sizeof(code));
      }
    }
  }
}

// A full tile takes loops of a length that the compiler knows.
template <int Width>
ZIPML_INLINE void rows_of_any_field(const uint8_t* in, size_t slots, int shift, bool first,
                                    uint8_t (*out)[kLanes]) {
  if (slots != kTileRows) {
    rows_of_field<Width>(in, slots * Width / 8, shift, first, out);
  } else if (first) {  // shift is 0
    rows_of_field<Width>(in, kTileRows * Width / 8, 0, true, out);
  } else {
    rows_of_field<Width>(in, kTileRows * Width / 8, shift, false, out);
  }
}

[[maybe_unused]] static __attribute__((noinline)) void unpack_woven_rows(const TileBytes& tile,
                                                                         size_t c0,
                                                                         CodeBlock& block) {
  alignas(64) uint8_t added[kTileRows][kLanes];
  std::memset(block.ninth, 0, sizeof(block.ninth));
  for_each_plane(tile.woven, [&](const uint8_t* plane, int which, int shift, bool first) ZIPML_LAMBDA {
    uint8_t (*out)[kLanes] = which == 0 ? block.low : which == 1 ? block.ninth : added;
    rows_of_any_field<1>(plane + c0 * (tile.slots / 8), tile.slots, shift, first, out);
  });
  add_bits(added[0], tile.slots * kLanes, block.low[0], block.ninth[0]);
}

// The codes of columns c0 to c0 + 15, all of which the tile has.
[[maybe_unused]] static __attribute__((noinline)) void unpack_rows(const TileBytes& tile,
                                                                   size_t c0,
                                                                   CodeBlock& block) {
  if (tile.woven.samples) return unpack_woven_rows(tile, c0, block);
  for_each_field(tile.stored_bits, tile.columns, tile.slots,
                 [&](int width, int shift, size_t base) ZIPML_LAMBDA {
    const uint8_t* in = tile.bytes + base + c0 * (tile.slots * static_cast<size_t>(width) / 8);
    const bool ninth = shift == 8, first = shift == 0 || ninth;
    uint8_t (*out)[kLanes] = ninth ? block.ninth : block.low;
    if (ninth) shift = 0;
    switch (width) {
      case 8: rows_of_any_field<8>(in, tile.slots, shift, first, out); break;
      case 4: rows_of_any_field<4>(in, tile.slots, shift, first, out); break;
      case 2: rows_of_any_field<2>(in, tile.slots, shift, first, out); break;
      default: rows_of_any_field<1>(in, tile.slots, shift, first, out); break;
    }
  });
}

template <int Width>
ZIPML_INLINE void column_of_field(const uint8_t* in, size_t bytes, int shift, uint8_t* out) {
  constexpr uint8_t mask = (1u << Width) - 1;
  for (size_t i = 0; i < 8 / Width; ++i) {
    for (size_t k = 0; k < bytes; ++k) {
      out[i * bytes + k] |= static_cast<uint8_t>(((in[k] >> (i * Width)) & mask) << shift);
    }
  }
}

template <int Width>
ZIPML_INLINE void column_of_any_field(const uint8_t* in, size_t slots, int shift, uint8_t* out) {
  if (slots == kTileRows) {
    column_of_field<Width>(in, kTileRows * Width / 8, shift, out);
  } else {
    column_of_field<Width>(in, slots * Width / 8, shift, out);
  }
}

// The codes of one column, 64 of each plane; slots that the tile does not store read as zero.
ZIPML_INLINE void unpack_down(const TileBytes& tile, size_t column, uint8_t* low, uint8_t* ninth) {
  std::memset(low, 0, kTileRows);
  std::memset(ninth, 0, kTileRows);
  if (tile.woven.samples) {
    uint8_t added[kTileRows] = {};
    for_each_plane(tile.woven, [&](const uint8_t* plane, int which, int shift, bool) ZIPML_LAMBDA {
      uint8_t* out = which == 0 ? low : which == 1 ? ninth : added;
      column_of_any_field<1>(plane + column * (tile.slots / 8), tile.slots, shift, out);
    });
    return add_bits(added, kTileRows, low, ninth);
  }
  for_each_field(tile.stored_bits, tile.columns, tile.slots,
                 [&](int width, int shift, size_t base) ZIPML_LAMBDA {
    const uint8_t* in =
        tile.bytes + base + column * (tile.slots * static_cast<size_t>(width) / 8);
    uint8_t* out = shift == 8 ? ninth : low;
    const int within = shift & 7;
    switch (width) {
      case 8: column_of_any_field<8>(in, tile.slots, within, out); break;
      case 4: column_of_any_field<4>(in, tile.slots, within, out); break;
      case 2: column_of_any_field<2>(in, tile.slots, within, out); break;
      default: column_of_any_field<1>(in, tile.slots, within, out); break;
    }
  });
}

// The codes of one row of the tile, all columns; no byte of another row is looked at but where it
// shares one with this.
ZIPML_INLINE void unpack_across(const TileBytes& tile, size_t row, uint8_t* low, uint8_t* ninth) {
  if (tile.woven.samples) {
    const size_t bytes = tile.slots / 8;
    std::memset(low, 0, tile.columns);
    std::memset(ninth, 0, tile.columns);
    for_each_plane(tile.woven, [&](const uint8_t* plane, int which, int shift, bool) ZIPML_LAMBDA {
      for (size_t c = 0; c < tile.columns; ++c) {
        const uint8_t bit = (plane[c * bytes + row % bytes] >> (row / bytes)) & 1;
        if (which == 2) {
          add_bits(&bit, 1, low + c, ninth + c);
        } else {
          uint8_t& out = which ? ninth[c] : low[c];
          out = static_cast<uint8_t>(out | bit << shift);
        }
      }
    });
    return;
  }
  for_each_field(tile.stored_bits, tile.columns, tile.slots,
                 [&](int width, int shift, size_t base) ZIPML_LAMBDA {
    const size_t bytes = tile.slots * static_cast<size_t>(width) / 8;
    const uint8_t* in = tile.bytes + base + row % bytes;
    const int digit = static_cast<int>(row / bytes) * width, within = shift & 7;
    const int mask = (1 << width) - 1;
    uint8_t* out = shift == 8 ? ninth : low;
    for (size_t c = 0; c < tile.columns; ++c) {
      const uint8_t code = static_cast<uint8_t>(((in[c * bytes] >> digit) & mask) << within);
      out[c] = within == 0 ? code : static_cast<uint8_t>(out[c] | code);
    }
  });
}

}  // namespace ZIPML_ISA
}  // namespace zipml
