// The draws that round models and residuals and that split code sums, several counters side by side: one counter alone
// would wait for its products.
#pragma once

#include "lanes.hpp"
#include "philox.hpp"

namespace zipml {
namespace ZIPML_ISA {

typedef uint64_t WordPart __attribute__((vector_size(kRegister)));
constexpr int kWordLanes = kRegister / 8, kWordParts = 8 / kWordLanes;

// Products of the low halves; high halves may hold anything.
ZIPML_INLINE WordPart wide_product(WordPart a, uint32_t b) {
#if defined(__AVX512F__)
  return reinterpret_cast<WordPart>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), _mm512_set1_epi64(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<WordPart>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(b)));
#else
  return (a & 0xFFFFFFFFu) * b;
#endif
}

ZIPML_INLINE WordPart counting() {  // 0, 1, 2, ...
  WordPart out{};
  for (int l = 0; l < kWordLanes; ++l) out[l] = static_cast<uint64_t>(l);
  return out;
}

// 64 draws of 16 bits for each of `Count` counters (tile, index): draw 32 (w / 2) + 4 m + 2 (w mod 2)
// + h is half h of word w of block m. Read as 16 numbers of 64 bits, number 8 e + m is words 2 e and
// 2 e + 1 of block m: for a split, those are the bits of 16 columns.
template <int Count>
ZIPML_INLINE void rounding_draws(PhiloxKey key, Purpose purpose, const uint64_t tiles[Count],
                                 const uint32_t index[Count], uint32_t draw, uint16_t draws[][64]) {
  // As many chains as the registers hold.
  constexpr int kAll = Count * kWordParts, kChains = kRegister == 64 ? kAll : 2;
  const uint32_t last = (static_cast<uint32_t>(purpose) << 24) | ((draw & 0xFFFFu) << 8);
#pragma GCC unroll 1
  for (int begin = 0; begin < kAll; begin += kChains) {
    WordPart x0[kChains], x1[kChains], x2[kChains], x3[kChains];
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const int i = (begin + c) / kWordParts, block = (begin + c) % kWordParts * kWordLanes;
      x0[c] = WordPart{} + (tiles[i] & 0xFFFFFFFFu);
      x1[c] = WordPart{} + (tiles[i] >> 32);
      x2[c] = WordPart{} + index[i];
      x3[c] = counting() + (last + static_cast<uint32_t>(block));
    }
    uint32_t k0 = key.k0, k1 = key.k1;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
      for (int c = 0; c < kChains; ++c) {
        const WordPart p0 = wide_product(x0[c], 0xD2511F53u), p1 = wide_product(x2[c], 0xCD9E8D57u);
        x0[c] = (p1 >> 32) ^ x1[c] ^ k0;
        x1[c] = p1;
        x2[c] = (p0 >> 32) ^ x3[c] ^ k1;
        x3[c] = p0;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      uint16_t* out = draws[(begin + c) / kWordParts] + (begin + c) % kWordParts * kWordLanes * 4;
      const WordPart first = (x0[c] & 0xFFFFFFFFu) | (x1[c] << 32), second = (x2[c] & 0xFFFFFFFFu) | (x3[c] << 32);
      std::memcpy(out, &first, sizeof(first));
      std::memcpy(out + 32, &second, sizeof(second));
    }
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
