// dots.hpp with AVX-512 VBMI and VNNI: vpdpbusd adds four products of a digit and an int8 entry to
// a sum of 32 bits, and never saturates on the way.
#pragma once

#include <immintrin.h>

namespace zipml {
namespace ZIPML_ISA {

using Z = __m512i;

ZIPML_INLINE Z dot4(Z sum, Z digits, Z entries) { return _mm512_dpbusd_epi32(sum, digits, entries); }
ZIPML_INLINE Z bytes512(int value) { return _mm512_set1_epi8(static_cast<char>(value)); }

// Loads up to 64 bytes; the rest is zero and is not touched.
ZIPML_INLINE Z load_part(const uint8_t* from, size_t bytes) {
  const __mmask64 mask = bytes >= 64 ? ~__mmask64{0} : (__mmask64{1} << bytes) - 1;
  return _mm512_maskz_loadu_epi8(mask, from);
}

ZIPML_INLINE Z broadcast4(const int8_t* entries) {
  int32_t four;
  std::memcpy(&four, entries, 4);
  return _mm512_set1_epi32(four);
}

// Byte indices that bring `Columns` columns of `Bytes` bytes, side by side, into groups of the
// same byte of four columns: group k of the first four columns, then those of the next four.
template <int Bytes>
struct Interleave {
  alignas(64) uint8_t index[128];
  constexpr Interleave() : index() {
    for (int i = 0; i < 128; ++i) {
      const int four = i / (4 * Bytes), k = i % (4 * Bytes) / 4, column = 4 * four + i % 4;
      index[i] = static_cast<uint8_t>(column * Bytes + k);
    }
  }
};

// Codes as bytes: 64 rows of a column.
using ByteColumn = Z;
ZIPML_INLINE ByteColumn load_bytes(const uint8_t* from) { return _mm512_loadu_si512(from); }

template <size_t N, class Source>
inline void byte_rows_of(const Source& source, size_t columns, const int8_t* weights, size_t stride, int32_t* out,
                         const uint8_t* ahead) {
  const Z none = _mm512_setzero_si512();
  Z sum[N][4];
  for (auto& one : sum) for (Z& s : one) s = none;
  const auto step = [&](size_t j, size_t left) __attribute__((always_inline)) {
    fetch_half(ahead, Source::kColumnBytes * j, Source::kColumnBytes * 4);
    const Z a = source.column(j), b = left > 1 ? source.column(j + 1) : none;
    const Z c = left > 2 ? source.column(j + 2) : none, d = left > 3 ? source.column(j + 3) : none;
    const Z ab = _mm512_unpacklo_epi8(a, b), AB = _mm512_unpackhi_epi8(a, b);
    const Z cd = _mm512_unpacklo_epi8(c, d), CD = _mm512_unpackhi_epi8(c, d);
    const Z u[4] = {_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd), _mm512_unpacklo_epi16(AB, CD),
                    _mm512_unpackhi_epi16(AB, CD)};
#pragma GCC unroll 2
    for (size_t n = 0; n < N; ++n) {
      const Z w = broadcast4(weights + n * stride + j);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) sum[n][v] = dot4(sum[n][v], u[v], w);
    }
  };
  size_t j = 0;
  for (; j + 4 <= columns; j += 4) step(j, 4);
  if (j < columns) step(j, columns - j);
  // lane L of 128 bits, dword i of sum v: row 16 L + 4 v + i
  for (size_t n = 0; n < N; ++n) {
    for (int v = 0; v < 4; ++v) {
      alignas(64) int32_t part[16];
      _mm512_store_si512(part, sum[n][v]);
      for (int l = 0; l < 4; ++l) std::memcpy(out + 64 * n + 16 * l + 4 * v, part + 4 * l, 16);
    }
  }
}

// Whole bytes less their lower digits leave the highest one in place, up to 240 times an entry: a sum
// of 32 bits holds so many columns of those, half of kMaxDotColumns.
constexpr size_t kByteColumns = size_t{1} << 16;

template <int W>
struct Rows;

template <>
struct Rows<4> {
  template <size_t N>
  static ZIPML_INLINE void run(const uint8_t* codes, size_t columns, const int8_t* weights, size_t stride,
                               int32_t* out, const uint8_t* ahead) {
    static constexpr Interleave<32> order;
    const Z first = _mm512_load_si512(order.index), second = _mm512_load_si512(order.index + 64);
    const Z low = bytes512(15);
    Z all[N][2], lower[N][2];
    for (size_t n = 0; n < N; ++n) all[n][0] = all[n][1] = lower[n][0] = lower[n][1] = _mm512_setzero_si512();
    const auto step = [&](Z a, Z b, size_t j) __attribute__((always_inline)) {
      fetch_half(ahead, 32 * j, 128);
      const Z u = _mm512_permutex2var_epi8(a, first, b), v = _mm512_permutex2var_epi8(a, second, b);
      const Z low_u = _mm512_and_si512(u, low), low_v = _mm512_and_si512(v, low);
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) {
        const Z w = broadcast4(weights + n * stride + j);
        // Whole bytes and their low digits: the high digits are the difference.
        all[n][0] = dot4(all[n][0], u, w);
        all[n][1] = dot4(all[n][1], v, w);
        lower[n][0] = dot4(lower[n][0], low_u, w);
        lower[n][1] = dot4(lower[n][1], low_v, w);
      }
    };
    size_t j = 0;
    for (; j + 4 <= columns; j += 4) {
      step(_mm512_loadu_si512(codes + 32 * j), _mm512_loadu_si512(codes + 32 * j + 64), j);
    }
    if (j < columns) {
      const size_t bytes = 32 * (columns - j);
      step(load_part(codes + 32 * j, bytes),
           bytes > 64 ? load_part(codes + 32 * j + 64, bytes - 64) : _mm512_setzero_si512(), j);
    }
    for (size_t n = 0; n < N; ++n) {
      for (int v = 0; v < 2; ++v) {
        _mm512_storeu_si512(out + 64 * n + 16 * v, lower[n][v]);
        _mm512_storeu_si512(out + 64 * n + 32 + 16 * v,
                            _mm512_srai_epi32(_mm512_sub_epi32(all[n][v], lower[n][v]), 4));
      }
    }
  }
};

template <>
struct Rows<2> {
  template <size_t N>
  static ZIPML_INLINE void run(const uint8_t* codes, size_t columns, const int8_t* weights, size_t stride,
                               int32_t* out, const uint8_t* ahead) {
    static constexpr Interleave<16> order;
    const Z index = _mm512_load_si512(order.index);
    const Z masks[3] = {bytes512(3), bytes512(12), bytes512(48)};
    Z sum[N][4];
    for (auto& one : sum) for (Z& s : one) s = _mm512_setzero_si512();
    const auto step = [&](Z a, size_t j) __attribute__((always_inline)) {
      fetch_half(ahead, 16 * j, 64);
      const Z u = _mm512_permutexvar_epi8(index, a);
      const Z digits[3] = {_mm512_and_si512(u, masks[0]), _mm512_and_si512(u, masks[1]),
                           _mm512_and_si512(u, masks[2])};
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) {
        const Z w = broadcast4(weights + n * stride + j);
        for (int i = 0; i < 3; ++i) sum[n][i] = dot4(sum[n][i], digits[i], w);
        sum[n][3] = dot4(sum[n][3], u, w);
      }
    };
    size_t j = 0;
    for (; j + 4 <= columns; j += 4) step(_mm512_loadu_si512(codes + 16 * j), j);
    if (j < columns) step(load_part(codes + 16 * j, 16 * (columns - j)), j);
    for (size_t n = 0; n < N; ++n) {
      Z last = sum[n][3];
      for (int i = 0; i < 3; ++i) {
        last = _mm512_sub_epi32(last, sum[n][i]);
        _mm512_storeu_si512(out + 64 * n + 16 * i, _mm512_srai_epi32(sum[n][i], 2 * i));
      }
      _mm512_storeu_si512(out + 64 * n + 48, _mm512_srai_epi32(last, 6));
    }
  }
};

template <>
struct Rows<1> {
  template <size_t N>
  static ZIPML_INLINE void run(const uint8_t* codes, size_t columns, const int8_t* weights, size_t stride,
                               int32_t* out, const uint8_t* ahead) {
    static constexpr Interleave<8> order;
    const Z index = _mm512_load_si512(order.index);
    Z masks[7], sum[N][8];
    for (int i = 0; i < 7; ++i) masks[i] = bytes512(1 << i);
    for (auto& one : sum) for (Z& s : one) s = _mm512_setzero_si512();
    const auto step = [&](Z a, size_t j) __attribute__((always_inline)) {
      fetch_half(ahead, 8 * j, 64);
      const Z u = _mm512_permutexvar_epi8(index, a);
      Z w[N];
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) {
        int32_t upper;
        std::memcpy(&upper, weights + n * stride + j + 4, 4);
        w[n] = _mm512_mask_set1_epi32(broadcast4(weights + n * stride + j), 0xFF00, upper);
        sum[n][7] = dot4(sum[n][7], u, w[n]);
      }
#pragma GCC unroll 7
      for (int i = 0; i < 7; ++i) {
        const Z digit = _mm512_and_si512(u, masks[i]);
#pragma GCC unroll 2
        for (size_t n = 0; n < N; ++n) sum[n][i] = dot4(sum[n][i], digit, w[n]);
      }
    };
    size_t j = 0;
    for (; j + 8 <= columns; j += 8) step(_mm512_loadu_si512(codes + 8 * j), j);
    if (j < columns) step(load_part(codes + 8 * j, 8 * (columns - j)), j);
    for (size_t n = 0; n < N; ++n) {
#pragma GCC unroll 7
      for (int i = 0; i < 7; ++i) sum[n][7] = _mm512_sub_epi32(sum[n][7], sum[n][i]);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const __m256i both = _mm256_add_epi32(_mm512_castsi512_si256(sum[n][i]),
                                              _mm512_extracti64x4_epi64(sum[n][i], 1));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 64 * n + 8 * i), _mm256_srai_epi32(both, i));
      }
    }
  }
};

template <int W>
inline void dot_rows(const uint8_t* codes, size_t columns, const int8_t* weights, size_t count, size_t stride,
                     int32_t* out, const uint8_t* ahead) {
  if (columns > kByteColumns) {
    int32_t rest[64];
    for (size_t n = 0; n < count; ++n) {
      const int8_t* w = weights + n * stride;
      dot_rows<W>(codes, kByteColumns, w, 1, 0, out + 64 * n, ahead);
      dot_rows<W>(codes + 8 * W * kByteColumns, columns - kByteColumns, w + kByteColumns, 1, 0, rest,
                  ahead + 4 * W * kByteColumns);
      for (int r = 0; r < 64; ++r) out[64 * n + r] += rest[r];
    }
    return;
  }
  size_t n = 0;
  for (; n + 2 <= count; n += 2) {
    Rows<W>::template run<2>(codes, columns, weights + n * stride, stride, out + 64 * n, ahead);
  }
  if (n < count) Rows<W>::template run<1>(codes, columns, weights + n * stride, stride, out + 64 * n, ahead);
}

template <class Source>
inline void byte_rows(const Source& source, size_t columns, const int8_t* weights, size_t count, size_t stride,
                      int32_t* out, const uint8_t* ahead) {
  size_t n = 0;
  for (; n + 2 <= count; n += 2) byte_rows_of<2>(source, columns, weights + n * stride, stride, out + 64 * n, ahead);
  if (n < count) byte_rows_of<1>(source, columns, weights + n * stride, stride, out + 64 * n, ahead);
}

// Adds neighbouring dwords of two vectors, and once more of two such sums: lane L of the result
// holds the sums of lane L of a, b, c and d.
ZIPML_INLINE Z add_pairs(Z a, Z b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}
ZIPML_INLINE Z add_quads(Z a, Z b, Z c, Z d) {
  const Z ab = add_pairs(a, b), cd = add_pairs(c, d);
  return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

template <int W>
struct Digits {
  static constexpr int kCount = 8 / W;
  // Digit i of every column meets the residuals of rows 8 W i .. 8 W (i + 1).
  static ZIPML_INLINE void arrange(const int8_t* r, Z* out) {
    for (int i = 0; i < kCount; ++i) {
      const int8_t* from = r + 8 * W * i;
      if (W == 4) out[i] = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
      if (W == 2) out[i] = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
      if (W == 1) {
        int64_t eight;
        std::memcpy(&eight, from, 8);
        out[i] = _mm512_set1_epi64(eight);
      }
    }
  }
  static ZIPML_INLINE Z digit(Z a, int i) {
    return _mm512_and_si512(i ? _mm512_srli_epi16(a, i * W) : a, bytes512((1 << W) - 1));
  }
};

// Sums of `Columns` = 64 / W columns: four vectors of 8 / W columns each, but for one bit (two).
template <int W>
ZIPML_INLINE void store_columns(const Z* v, int32_t* out) {
  if constexpr (W == 8) {  // v[c]: 16 dwords of column c
    Z s = add_quads(v[0], v[1], v[2], v[3]);
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
  } else if constexpr (W == 4) {  // v[c]: columns 2 c (lanes 0, 1) and 2 c + 1 (lanes 2, 3)
    Z s = add_quads(v[0], v[1], v[2], v[3]);
    s = _mm512_add_epi32(s, _mm512_shuffle_i32x4(s, s, 0xB1));
    const Z order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 0, 8, 1, 9, 2, 10, 3, 11);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                        _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, s)));
  } else if constexpr (W == 2) {  // v[c]: columns 4 c + lane
    const Z s = add_quads(v[0], v[1], v[2], v[3]);
    const Z order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, s));
  } else {  // v[c]: columns 8 c + pair of dwords
    const Z even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const Z odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
    _mm512_storeu_si512(out, _mm512_add_epi32(_mm512_permutex2var_epi32(v[0], even, v[1]),
                                              _mm512_permutex2var_epi32(v[0], odd, v[1])));
  }
}

template <size_t N, size_t Tiles, class Source>
inline void byte_columns_of(const Source* sources, const uint8_t* const* ahead, size_t columns,
                            const int8_t* residuals, size_t stride, int32_t* out, size_t out_stride) {
  const auto four = [&](size_t j, size_t left) __attribute__((always_inline)) {
    Z v[N][4];
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; ++c) {
      for (size_t n = 0; n < N; ++n) v[n][c] = _mm512_setzero_si512();
      if (c >= left) continue;
#pragma GCC unroll 4
      for (size_t t = 0; t < Tiles; ++t) {
        if (columns_fetch(t, Tiles)) _mm_prefetch(ahead[t] + Source::kColumnBytes * (j + c), _MM_HINT_T1);
        const Z digits = sources[t].column(j + c);
#pragma GCC unroll 2
        for (size_t n = 0; n < N; ++n) {
          v[n][c] = dot4(v[n][c], digits, _mm512_loadu_si512(residuals + n * stride + 64 * t));
        }
      }
    }
    for (size_t n = 0; n < N; ++n) store_columns<8>(v[n], out + n * out_stride + j);
  };
  size_t j = 0;
  for (; j + 4 <= columns; j += 4) four(j, 4);
  if (j < columns) four(j, columns - j);
}

template <int W, size_t N, size_t Tiles>
inline void dot_columns_of(const uint8_t* const* tiles, const uint8_t* const* ahead, size_t columns,
                           const int8_t* residuals, size_t stride, int32_t* out, size_t out_stride) {
  using D = Digits<W>;
  constexpr size_t kVectors = W == 1 ? 2 : 4, kEach = 8 / W, kColumns = kVectors * kEach;
  Z r[N][Tiles][D::kCount];
  for (size_t n = 0; n < N; ++n) {
    for (size_t t = 0; t < Tiles; ++t) D::arrange(residuals + n * stride + 64 * t, r[n][t]);
  }
  const auto some = [&](size_t j, size_t bytes) __attribute__((always_inline)) {
    Z v[N][kVectors];
#pragma GCC unroll 4
    for (size_t c = 0; c < kVectors; ++c) {
      for (size_t n = 0; n < N; ++n) v[n][c] = _mm512_setzero_si512();
      if (64 * c >= bytes) continue;
#pragma GCC unroll 4
      for (size_t t = 0; t < Tiles; ++t) {
        const uint8_t* at = tiles[t] + 8 * W * j + 64 * c;
        const bool whole = bytes >= kVectors * 64;
        if (whole && columns_fetch(t, Tiles)) _mm_prefetch(ahead[t] + 8 * W * j + 64 * c, _MM_HINT_T1);
        const Z a = whole ? _mm512_loadu_si512(at) : load_part(at, bytes - 64 * c);
#pragma GCC unroll 8
        for (int i = 0; i < D::kCount; ++i) {
          const Z digit = D::digit(a, i);
#pragma GCC unroll 2
          for (size_t n = 0; n < N; ++n) v[n][c] = dot4(v[n][c], digit, r[n][t][i]);
        }
      }
    }
    for (size_t n = 0; n < N; ++n) store_columns<W>(v[n], out + n * out_stride + j);
  };
  size_t j = 0;
  for (; j + kColumns <= columns; j += kColumns) some(j, kVectors * 64);
  if (j < columns) some(j, 8 * W * (columns - j));
}

ZIPML_INLINE Z look_up64(const uint8_t* table, size_t entries, Z codes) {
  const auto part = [&](size_t i) __attribute__((always_inline)) { return _mm512_loadu_si512(table + 64 * i); };
  if (entries == 16) {
    const Z all = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    return _mm512_shuffle_epi8(all, codes);
  }
  if (entries <= 64) return _mm512_permutexvar_epi8(codes, part(0));
  const Z low = _mm512_permutex2var_epi8(part(0), codes, part(1));
  if (entries < 256) return low;
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low,
                                _mm512_permutex2var_epi8(part(2), codes, part(3)));
}

ZIPML_INLINE void look_up(const uint8_t* table, size_t entries, const uint8_t z[64], uint8_t out[64]) {
  _mm512_storeu_si512(out, look_up64(table, entries, _mm512_loadu_si512(z)));
}

template <int W>
ZIPML_INLINE ByteColumn look_up_digits(const uint8_t* table, const uint8_t* column) {
  Z v;
  if constexpr (W == 4) v = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(column)));
  if constexpr (W == 2) v = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(column)));
  if constexpr (W == 1) {
    int64_t eight;
    std::memcpy(&eight, column, 8);
    v = _mm512_set1_epi64(eight);
  }
  const Z by = _mm512_setr_epi64(0, W * (1 / W), W * (2 / W), W * (3 / W), W * (4 / W), W * (5 / W),
                                 W * (6 / W), W * (7 / W));
  return look_up64(table, 16, _mm512_and_si512(_mm512_srlv_epi64(v, by), bytes512((1 << W) - 1)));
}

}  // namespace ZIPML_ISA
}  // namespace zipml
