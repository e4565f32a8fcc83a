// Products of the columns of up to four tiles with residuals, AVX2. Two vectors of residuals at once
// share the digits.
#pragma once

#include "dots_avx2.hpp"

namespace zipml {
namespace ZIPML_ISA {

template <int W>
struct Digits {
  static constexpr int kCount = 8 / W;
  static ZIPML_INLINE void arrange(const int8_t* r, Y* out) {
    for (int i = 0; i < kCount; ++i) {
      const int8_t* from = r + 8 * W * i;
      if (W == 4) out[i] = load256(from);
      if (W == 2) out[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
      if (W == 1) {
        int64_t eight;
        std::memcpy(&eight, from, 8);
        out[i] = _mm256_set1_epi64x(eight);
      }
    }
  }
  static ZIPML_INLINE Y digit(Y a, int i) {
    return _mm256_and_si256(i ? _mm256_srli_epi16(a, i * W) : a, _mm256_set1_epi8((1 << W) - 1));
  }
};

// Brings some columns of every other tile near.
template <size_t Tiles>
ZIPML_INLINE void fetch_some(const uint8_t* const* ahead, size_t column_bytes, size_t j, size_t columns) {
  for (size_t t = 0; t < Tiles; ++t) {
    if (!columns_fetch(t, Tiles)) continue;
    for (size_t i = 0; i < columns * column_bytes; i += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead[t]) + column_bytes * j + i, _MM_HINT_T1);
    }
  }
}

ZIPML_INLINE Y hadd(Y a, Y b) { return _mm256_hadd_epi32(a, b); }

// Sums of eight columns for each of N vectors. `sums(v, out)` gives N registers with sums of 32 bits
// for part v of the columns: eight parts of one column, four of two (W = 2) or two of four (W = 1).
template <int W, size_t N, class F>
ZIPML_INLINE void eight_columns(F&& sums, int32_t* out, size_t out_stride) {
  if constexpr (W >= 4) {
    Y quad[2][N];
#pragma GCC unroll 2
    for (size_t q = 0; q < 2; ++q) {
      Y a[N], b[N], ab[N];
      sums(4 * q, a);
      sums(4 * q + 1, b);
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) ab[n] = hadd(a[n], b[n]);
      sums(4 * q + 2, a);
      sums(4 * q + 3, b);
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) quad[q][n] = hadd(ab[n], hadd(a[n], b[n]));
    }
#pragma GCC unroll 2
    for (size_t n = 0; n < N; ++n) {
      store256(out + n * out_stride, _mm256_add_epi32(_mm256_permute2x128_si256(quad[0][n], quad[1][n], 0x20),
                                                      _mm256_permute2x128_si256(quad[0][n], quad[1][n], 0x31)));
    }
  } else {
    Y v[W == 2 ? 4 : 2][N];
#pragma GCC unroll 4
    for (size_t i = 0; i < (W == 2 ? 4 : 2); ++i) sums(i, v[i]);
    const Y order = W == 2 ? _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7) : _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
#pragma GCC unroll 2
    for (size_t n = 0; n < N; ++n) {
      Y s = hadd(v[0][n], v[1][n]);
      if constexpr (W == 2) s = hadd(s, hadd(v[2][n], v[3][n]));
      store256(out + n * out_stride, _mm256_permutevar8x32_epi32(s, order));
    }
  }
}

template <size_t N, size_t Tiles, class Source>
inline void byte_columns_of(const Source* sources, const uint8_t* const* ahead, size_t columns,
                            const int8_t* residuals, size_t stride, int32_t* out, size_t out_stride) {
  const auto eight = [&](size_t j, size_t left) __attribute__((always_inline)) {
    eight_columns<8, N>([&](size_t v, Y* sum) __attribute__((always_inline)) {
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) sum[n] = _mm256_setzero_si256();
      if (v >= left) return;
#pragma GCC unroll 4
      for (size_t t = 0; t < Tiles; ++t) {
        const ByteColumn c = sources[t].column(j + v);
#pragma GCC unroll 2
        for (size_t n = 0; n < N; ++n) {
          const int8_t* r = residuals + n * stride + 64 * t;
          sum[n] = add_widened(sum[n], _mm256_maddubs_epi16(c.half[0], load256(r)));
          sum[n] = add_widened(sum[n], _mm256_maddubs_epi16(c.half[1], load256(r + 32)));
        }
      }
    }, out + j, out_stride);
  };
  size_t j = 0;
  for (; j + 8 <= columns; j += 8) {
    fetch_some<Tiles>(ahead, Source::kColumnBytes, j, 8);
    eight(j, 8);
  }
  if (j < columns) eight(j, columns - j);
}

// Sums of 16 bits: at most 2032 * W^2 ... 7620 a tile, so that four tiles fit.
template <int W, size_t N, size_t Tiles>
inline void dot_columns_of(const uint8_t* const* tiles, const uint8_t* const* ahead, size_t columns,
                           const int8_t* residuals, size_t stride, int32_t* out, size_t out_stride) {
  using D = Digits<W>;
  Y r[N][Tiles][D::kCount];
  for (size_t n = 0; n < N; ++n) {
    for (size_t t = 0; t < Tiles; ++t) D::arrange(residuals + n * stride + 64 * t, r[n][t]);
  }
  const auto eight = [&](const uint8_t* const* at, size_t j) __attribute__((always_inline)) {
    eight_columns<W, N>([&](size_t v, Y* sum) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (size_t t = 0; t < Tiles; ++t) {
        const Y a = load256(at[t] + 32 * v);
#pragma GCC unroll 8
        for (int i = 0; i < D::kCount; ++i) {
          const Y digit = D::digit(a, i);
#pragma GCC unroll 2
          for (size_t n = 0; n < N; ++n) {
            const Y products = _mm256_maddubs_epi16(digit, r[n][t][i]);
            sum[n] = t + i == 0 ? products : _mm256_add_epi16(sum[n], products);
          }
        }
      }
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) sum[n] = widen(sum[n]);
    }, out + j, out_stride);
  };
  const uint8_t* at[Tiles];
  size_t j = 0;
  for (; j + 8 <= columns; j += 8) {
    fetch_some<Tiles>(ahead, 8 * W, j, 8);
    for (size_t t = 0; t < Tiles; ++t) at[t] = tiles[t] + 8 * W * j;
    eight(at, j);
  }
  if (j < columns) {
    alignas(32) uint8_t tails[Tiles][64 * W];
    for (size_t t = 0; t < Tiles; ++t) {
      std::memset(tails[t], 0, 64 * W);
      std::memcpy(tails[t], tiles[t] + 8 * W * j, 8 * W * (columns - j));
      at[t] = tails[t];
    }
    eight(at, j);
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
