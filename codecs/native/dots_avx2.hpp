// dots.hpp with AVX2: vpmaddubsw adds two products of a digit and an int8 entry in 16 bits. A few
// of these are added up in 16 bits before vpmaddwd widens them. Here are codes as bytes and tables;
// the products follow below.
#pragma once

#include <immintrin.h>

namespace zipml {
namespace ZIPML_ISA {

using Y = __m256i;

ZIPML_INLINE Y load256(const void* from) { return _mm256_loadu_si256(static_cast<const Y*>(from)); }
ZIPML_INLINE void store256(void* to, Y v) { _mm256_storeu_si256(static_cast<Y*>(to), v); }
ZIPML_INLINE Y widen(Y pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
ZIPML_INLINE Y add_widened(Y sum, Y pairs) { return _mm256_add_epi32(sum, widen(pairs)); }

// Codes as bytes: 64 rows of a column, 32 in each register.
struct ByteColumn {
  Y half[2];
};
ZIPML_INLINE ByteColumn load_bytes(const uint8_t* from) { return {{load256(from), load256(from + 32)}}; }

// Entries of 32 codes in a table of 16 << Level: one shuffle for each 16, then bit after bit of the
// code chooses between neighbours.
template <int Level>
ZIPML_INLINE Y pick(const uint8_t* table, Y low, const Y* bits) {
  if constexpr (Level == 0) {
    return _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), low);
  } else {
    return _mm256_blendv_epi8(pick<Level - 1>(table, low, bits),
                              pick<Level - 1>(table + (8 << Level), low, bits), bits[Level - 1]);
  }
}
template <int Level>
ZIPML_INLINE void look_up_at(const uint8_t* table, const uint8_t z[64], uint8_t out[64]) {
  for (int h = 0; h < 2; ++h) {
    const Y v = load256(z + 32 * h);
    const Y bits[4] = {_mm256_slli_epi16(v, 3), _mm256_slli_epi16(v, 2), _mm256_slli_epi16(v, 1), v};
    store256(out + 32 * h, pick<Level>(table, _mm256_and_si256(v, _mm256_set1_epi8(15)), bits));
  }
}
ZIPML_INLINE void look_up(const uint8_t* table, size_t entries, const uint8_t z[64], uint8_t out[64]) {
  switch (entries) {
    case 16: return look_up_at<0>(table, z, out);
    case 32: return look_up_at<1>(table, z, out);
    case 64: return look_up_at<2>(table, z, out);
    case 128: return look_up_at<3>(table, z, out);
    default: return look_up_at<4>(table, z, out);
  }
}

template <int W>
ZIPML_INLINE ByteColumn look_up_digits(const uint8_t* table, const uint8_t* column) {
  const Y t = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  const Y mask = _mm256_set1_epi8((1 << W) - 1);
  Y digits[2];
  if constexpr (W == 4) {
    const Y v = load256(column);
    digits[0] = _mm256_and_si256(v, mask);
    digits[1] = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
  } else {
    Y v;
    if constexpr (W == 2) v = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(column)));
    if constexpr (W == 1) {
      int64_t eight;
      std::memcpy(&eight, column, 8);
      v = _mm256_set1_epi64x(eight);
    }
    for (int h = 0; h < 2; ++h) {
      const int q = 4 * h;
      const Y by = _mm256_setr_epi64x(W * (q / W), W * ((q + 1) / W), W * ((q + 2) / W), W * ((q + 3) / W));
      digits[h] = _mm256_and_si256(_mm256_srlv_epi64(v, by), mask);
    }
  }
  return {{_mm256_shuffle_epi8(t, digits[0]), _mm256_shuffle_epi8(t, digits[1])}};
}

}  // namespace ZIPML_ISA
}  // namespace zipml

#include "dots_avx2_columns.hpp"
#include "dots_avx2_rows.hpp"
