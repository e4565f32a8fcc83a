// Philox4x32-10 (Salmon et al., SC 2011): the counter-based generator behind every random draw.
//
// A draw is a pure function of (key, counter), so results cannot depend on chunking, thread
// count or order. docs/format.md gives the counter layout; rng.py is the NumPy reference.
#pragma once

#include <cstdint>

#include "layout.hpp"

namespace zipml {

// What a draw is for: the top byte of the last counter word.
enum class Purpose : uint32_t { kQuantize = 0, kSplit = 1, kModel = 4, kResidual = 5, kWeave = 7, kSubset = 8 };

struct PhiloxKey {
  uint32_t k0, k1;
  explicit __attribute__((always_inline)) PhiloxKey(uint64_t seed)
      : k0(static_cast<uint32_t>(seed)), k1(static_cast<uint32_t>(seed >> 32)) {}
};

// One block of four words. The rounds are spelled out by the compiler, so that a loop over blocks
// has a straight body and becomes vector code.
ZIPML_INLINE void philox(PhiloxKey key, const uint32_t counter[4],
                                                  uint32_t out[4]) {
  constexpr uint64_t kMul0 = 0xD2511F53u, kMul1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  uint32_t x0 = counter[0], x1 = counter[1], x2 = counter[2], x3 = counter[3];
  uint32_t k0 = key.k0, k1 = key.k1;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMul0 * x0, p1 = kMul1 * x2;
    x0 = static_cast<uint32_t>(p1 >> 32) ^ x1 ^ k0;
    x1 = static_cast<uint32_t>(p1);
    x2 = static_cast<uint32_t>(p0 >> 32) ^ x3 ^ k1;
    x3 = static_cast<uint32_t>(p0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

// Blocks of a tile for `count` indices (columns, or groups of columns) from `first` on, eight
// each: words[w][8 c + m] is word w of block m of index first + c.
template <size_t Count>
ZIPML_INLINE void tile_blocks(PhiloxKey key, uint64_t tile, uint32_t first,
                                                       uint32_t last, uint32_t words[4][8 * Count]) {
  const uint32_t low = static_cast<uint32_t>(tile), high = static_cast<uint32_t>(tile >> 32);
  for (uint32_t lane = 0; lane < 8 * Count; ++lane) {
    const uint32_t counter[4] = {low, high, first + lane / 8, last + lane % 8};
    uint32_t out[4];
    philox(key, counter, out);
    for (int w = 0; w < 4; ++w) words[w][lane] = out[w];
  }
}

// The 64 draws of 16 bits that quantise each of 16 columns of one tile: row 16 w + 2 m + h takes
// half h of word w of block m.
ZIPML_INLINE void quantize_draws(PhiloxKey key, uint64_t tile,
                                                          uint32_t first_column,
                                                          uint16_t draws[16][64]) {
  alignas(64) uint32_t words[4][128];
  tile_blocks<16>(key, tile, first_column, static_cast<uint32_t>(Purpose::kQuantize) << 24, words);
  for (int c = 0; c < 16; ++c) {
    for (int w = 0; w < 4; ++w) {
      for (int m = 0; m < 8; ++m) {
        const uint32_t word = words[w][8 * c + m];
        draws[c][16 * w + 2 * m] = static_cast<uint16_t>(word);
        draws[c][16 * w + 2 * m + 1] = static_cast<uint16_t>(word >> 16);
      }
    }
  }
}

}  // namespace zipml
