// The draws of one tile for kLanes columns, one column a lane.
//
// Word w of block m holds the draws of the rows 16 w + 2 m (low half) and 16 w + 2 m + 1 of a
// column: with columns in lanes it is what the rounding of these two rows needs, as it is. Even
// and odd columns are kept apart, in 64-bit lanes, for that is how wide products come; their high
// halves may hold anything.
#pragma once

#include "column_lanes.hpp"
#include "philox.hpp"

namespace zipml {
namespace ZIPML_ISA {

constexpr uint64_t kMul0 = 0xD2511F53u, kMul1 = 0xCD9E8D57u;

// Round keys. Round r takes k0 + r weyl0 and k1 + r weyl1.
struct RoundKeys {
  uint64_t k0[10], k1[10];
  explicit RoundKeys(uint64_t seed) {
    const PhiloxKey key(seed);
    for (uint32_t r = 0; r < 10; ++r) {
      k0[r] = key.k0 + r * 0x9E3779B9u;
      k1[r] = key.k1 + r * 0xBB67AE85u;
    }
    for (uint32_t r = 0; r < 10; ++r) {
      k0[r] &= 0xFFFFFFFFu;
      k1[r] &= 0xFFFFFFFFu;
    }
  }
};

struct PhiloxState {
  Quads x0, x1, x2, x3;

  ZIPML_INLINE void round(const RoundKeys& keys, int r) {
    const Quads p0 = wide_product(x0, spread_quad(kMul0)), p1 = wide_product(x2, spread_quad(kMul1));
    x0 = xor3(p1 >> 32, x1, spread_quad(keys.k0[r]));
    x1 = p1;
    x2 = xor3(p0 >> 32, x3, spread_quad(keys.k1[r]));
    x3 = p0;
  }
};

// draws[8 w + m] is word w of block m.
//
// Most words of the counter are the same for all columns or for all blocks, which saves the
// first three rounds most of their work: `fixed` stands for what does not depend on the block.
// `last` is the counter's last word for the first block.
ZIPML_INLINE void draw_tile(const RoundKeys& keys, uint64_t tile, uint32_t column, Words draws[32],
                            uint64_t last = static_cast<uint64_t>(Purpose::kQuantize) << 24) {
  const uint64_t p0 = kMul0 * static_cast<uint32_t>(tile);
  Quads x1[2], third0[2], third1[2], third2[2];
  for (size_t h = 0; h < 2; ++h) {
    Quads columns;
    for (size_t i = 0; i < kLanes / 2; ++i) columns[i] = static_cast<uint32_t>(column + 2 * i + h);
    const Quads p1 = wide_product(columns, spread_quad(kMul1));
    const Quads x0 = (p1 >> 32) ^ spread_quad((tile >> 32) ^ keys.k0[0]);
    x1[h] = p1;
    const Quads q0 = wide_product(x0, spread_quad(kMul0));
    const Quads x2 = (q0 >> 32) ^ spread_quad(static_cast<uint32_t>(p0) ^ keys.k1[1]);
    third1[h] = wide_product(x2, spread_quad(kMul1));
    third0[h] = third1[h] >> 32;
    third2[h] = q0 ^ spread_quad(keys.k1[2]);
  }
  // Two blocks at a time hide the latency of the products, where there are registers for them.
  constexpr size_t kTogether = kLanes == 16 ? 2 : 1;
  for (size_t m = 0; m < 8; m += kTogether) {
    PhiloxState state[2 * kTogether];
#pragma GCC unroll 4
    for (size_t i = 0; i < 2 * kTogether; ++i) {
      const size_t h = i % 2;
      const uint64_t x2 = (p0 >> 32) ^ (last + m + i / 2) ^ keys.k1[0];
      const uint64_t q1 = kMul1 * x2;
      const Quads y0 = x1[h] ^ spread_quad((q1 >> 32) ^ keys.k0[1]);
      const Quads r0 = wide_product(y0, spread_quad(kMul0));
      state[i].x0 = third0[h] ^ spread_quad(static_cast<uint32_t>(q1) ^ keys.k0[2]);
      state[i].x1 = third1[h];
      state[i].x2 = (r0 >> 32) ^ third2[h];
      state[i].x3 = r0;
    }
#pragma GCC unroll 7
    for (int r = 3; r < 10; ++r) {
#pragma GCC unroll 4
      for (size_t i = 0; i < 2 * kTogether; ++i) state[i].round(keys, r);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < kTogether; ++i) {
      const PhiloxState &even = state[2 * i], &odd = state[2 * i + 1];
      draws[m + i] = zipped(even.x0, odd.x0);
      draws[8 + m + i] = zipped(even.x1, odd.x1);
      draws[16 + m + i] = zipped(even.x2, odd.x2);
      draws[24 + m + i] = zipped(even.x3, odd.x3);
    }
  }
}

// The same where lanes are columns of several tiles: one counter a lane.
ZIPML_INLINE void draw_lanes(const RoundKeys& keys, const uint64_t tile[kLanes],
                             const uint32_t column[kLanes], Words draws[32],
                             uint64_t last = static_cast<uint64_t>(Purpose::kQuantize) << 24) {
  alignas(64) uint64_t low[2][kLanes / 2], high[2][kLanes / 2], index[2][kLanes / 2];
  for (size_t lane = 0; lane < kLanes; ++lane) {
    low[lane % 2][lane / 2] = static_cast<uint32_t>(tile[lane]);
    high[lane % 2][lane / 2] = tile[lane] >> 32;
    index[lane % 2][lane / 2] = column[lane];
  }
  const auto start = [&](size_t h, size_t m) -> PhiloxState {
    return {load_as<Quads>(low[h]), load_as<Quads>(high[h]), load_as<Quads>(index[h]), spread_quad(last + m)};
  };
  for (size_t m = 0; m < 8; ++m) {
    PhiloxState even = start(0, m), odd = start(1, m);
#pragma GCC unroll 10
    for (int r = 0; r < 10; ++r) {
      even.round(keys, r);
      odd.round(keys, r);
    }
    draws[m] = zipped(even.x0, odd.x0);
    draws[8 + m] = zipped(even.x1, odd.x1);
    draws[16 + m] = zipped(even.x2, odd.x2);
    draws[24 + m] = zipped(even.x3, odd.x3);
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
