// Philox4x32-10 (Salmon et al., SC 2011): the counter-based generator behind every random draw.
//
// A draw is a pure function of (key, counter), so results cannot depend on chunking, thread
// count or order. docs/format.md gives the counter layout; rng.py is the NumPy reference.
#pragma once

#include <cstdint>

namespace zipml {

// What a draw is for: the top byte of the last counter word.
enum class Purpose : uint32_t { kQuantize = 0, kSplit = 1 };

struct PhiloxKey {
  uint32_t k0, k1;
  explicit PhiloxKey(uint64_t seed)
      : k0(static_cast<uint32_t>(seed)), k1(static_cast<uint32_t>(seed >> 32)) {}
};

// Eight blocks at once whose last counter word is base + 0 .. base + 7; the loops over the lanes
// are what the compiler turns into vector code. out[w][m] is word w of block m.
inline __attribute__((always_inline)) void philox8(PhiloxKey key, uint32_t c0, uint32_t c1,
                                                   uint32_t c2, uint32_t c3_base,
                                                   uint32_t out[4][8]) {
  constexpr uint32_t kMul0 = 0xD2511F53u, kMul1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  uint32_t x0[8], x1[8], x2[8], x3[8];
  for (uint32_t m = 0; m < 8; ++m) {
    x0[m] = c0;
    x1[m] = c1;
    x2[m] = c2;
    x3[m] = c3_base + m;
  }
  uint32_t k0 = key.k0, k1 = key.k1;
  for (int round = 0; round < 10; ++round) {
    for (int m = 0; m < 8; ++m) {
      const uint64_t p0 = static_cast<uint64_t>(kMul0) * x0[m];
      const uint64_t p1 = static_cast<uint64_t>(kMul1) * x2[m];
      const uint32_t y0 = static_cast<uint32_t>(p1 >> 32) ^ x1[m] ^ k0;
      const uint32_t y2 = static_cast<uint32_t>(p0 >> 32) ^ x3[m] ^ k1;
      x1[m] = static_cast<uint32_t>(p1);
      x3[m] = static_cast<uint32_t>(p0);
      x0[m] = y0;
      x2[m] = y2;
    }
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  for (int m = 0; m < 8; ++m) {
    out[0][m] = x0[m];
    out[1][m] = x1[m];
    out[2][m] = x2[m];
    out[3][m] = x3[m];
  }
}

// The 64 draws of 16 bits that quantise one column of one tile: row 16 w + 2 m + h takes half h
// of word w of block m.
inline __attribute__((always_inline)) void quantize_draws(PhiloxKey key, uint64_t tile,
                                                          uint32_t column, uint16_t draws[64]) {
  uint32_t words[4][8];
  const uint32_t last = static_cast<uint32_t>(Purpose::kQuantize) << 24;
  philox8(key, static_cast<uint32_t>(tile), static_cast<uint32_t>(tile >> 32), column, last, words);
  for (int w = 0; w < 4; ++w) {
    for (int m = 0; m < 8; ++m) {
      draws[16 * w + 2 * m] = static_cast<uint16_t>(words[w][m]);
      draws[16 * w + 2 * m + 1] = static_cast<uint16_t>(words[w][m] >> 16);
    }
  }
}

// One bit a row for 16 columns of a tile (a group): column 2 m + p of the group takes words 2 p
// (rows 0-31) and 2 p + 1 (rows 32-63) of block m. It says which of two samples rounded up.
inline __attribute__((always_inline)) void split_masks(PhiloxKey key, uint64_t tile, uint32_t group,
                                                       uint32_t draw, uint64_t masks[16]) {
  uint32_t words[4][8];
  const uint32_t last = (static_cast<uint32_t>(Purpose::kSplit) << 24) | ((draw & 0xFFFFu) << 8);
  philox8(key, static_cast<uint32_t>(tile), static_cast<uint32_t>(tile >> 32), group, last, words);
  for (int m = 0; m < 8; ++m) {
    masks[2 * m] = words[0][m] | (static_cast<uint64_t>(words[1][m]) << 32);
    masks[2 * m + 1] = words[2][m] | (static_cast<uint64_t>(words[3][m]) << 32);
  }
}

}  // namespace zipml
