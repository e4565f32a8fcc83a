// dots.hpp with AVX2: vpmaddubsw adds two products of a digit and an int8 entry in 16 bits. A few
// of these are added up in 16 bits before vpmaddwd widens them.
#pragma once

#include <immintrin.h>

namespace zipml {
namespace ZIPML_ISA {

using Y = __m256i;

ZIPML_INLINE Y load256(const void* from) { return _mm256_loadu_si256(static_cast<const Y*>(from)); }
ZIPML_INLINE void store256(void* to, Y v) { _mm256_storeu_si256(static_cast<Y*>(to), v); }
ZIPML_INLINE Y widen(Y pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
ZIPML_INLINE Y add_widened(Y sum, Y pairs) { return _mm256_add_epi32(sum, widen(pairs)); }

ZIPML_INLINE Y broadcast4(const int8_t* entries) {
  int32_t four;
  std::memcpy(&four, entries, 4);
  return _mm256_set1_epi32(four);
}

// Groups of the same byte of four columns, 32 bytes of each: lane L of 128 bits and dword i of
// out[v] hold byte 16 L + 4 v + i.
ZIPML_INLINE void interleave4(Y a, Y b, Y c, Y d, Y out[4]) {
  const Y ab = _mm256_unpacklo_epi8(a, b), AB = _mm256_unpackhi_epi8(a, b);
  const Y cd = _mm256_unpacklo_epi8(c, d), CD = _mm256_unpackhi_epi8(c, d);
  out[0] = _mm256_unpacklo_epi16(ab, cd);
  out[1] = _mm256_unpackhi_epi16(ab, cd);
  out[2] = _mm256_unpacklo_epi16(AB, CD);
  out[3] = _mm256_unpackhi_epi16(AB, CD);
}

ZIPML_INLINE void store_rows(const Y sum[4], int32_t* out) {
  for (int v = 0; v < 2; ++v) {  // whole registers, as they are read again at once
    store256(out + 8 * v, _mm256_permute2x128_si256(sum[2 * v], sum[2 * v + 1], 0x20));
    store256(out + 16 + 8 * v, _mm256_permute2x128_si256(sum[2 * v], sum[2 * v + 1], 0x31));
  }
}

// How many times a sum of 16 bits may be added to before it is widened: 127 * 2 * 12 (the digits
// of two bits that stay in place) * 8 < 2^15.
constexpr size_t kAdds = 8;

// Columns that are taken at once, and a copy of the last ones where they are fewer.
template <int W>
struct Tail {
  static constexpr size_t kColumns = W >= 4 ? 4 : 8;
  alignas(64) uint8_t bytes[kColumns * 8 * W];
  Tail(const uint8_t* codes, size_t columns) {
    std::memset(bytes, 0, sizeof(bytes));
    std::memcpy(bytes, codes, columns * 8 * W);
  }
};

template <int W>
void dot_rows(const uint8_t* codes, size_t columns, const int8_t* weights, int32_t out[64]);

// Codes as bytes: 64 rows of a column, 32 in each register.
struct ByteColumn {
  Y half[2];
};
ZIPML_INLINE ByteColumn no_bytes() { return {{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }

ZIPML_INLINE ByteColumn load_bytes(const uint8_t* from) { return {{load256(from), load256(from + 32)}}; }

template <class Source>
ZIPML_INLINE void byte_rows(const Source& source, size_t columns, const int8_t* weights, int32_t out[64]) {
  Y sum[2][4];
  for (auto& half : sum) for (Y& s : half) s = _mm256_setzero_si256();
  const auto step = [&](size_t j, size_t left) __attribute__((always_inline)) {
    const Y w = broadcast4(weights + j);
    ByteColumn c[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) c[i] = i < left ? source.column(j + i) : no_bytes();
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      Y u[4];
      interleave4(c[0].half[h], c[1].half[h], c[2].half[h], c[3].half[h], u);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) sum[h][v] = add_widened(sum[h][v], _mm256_maddubs_epi16(u[v], w));
    }
  };
  size_t j = 0;
  for (; j + 4 <= columns; j += 4) step(j, 4);
  if (j < columns) step(j, columns - j);
  store_rows(sum[0], out);
  store_rows(sum[1], out + 32);
}

template <>
inline void dot_rows<4>(const uint8_t* codes, size_t columns, const int8_t* weights, int32_t out[64]) {
  const Y low = _mm256_set1_epi8(15);
  Y sum[2][4], part[2][4];
  for (auto& digit : sum) for (Y& s : digit) s = _mm256_setzero_si256();
  const auto step = [&](const uint8_t* c, const int8_t* four) __attribute__((always_inline)) {
    const Y w = broadcast4(four);
    Y u[4];
    interleave4(load256(c), load256(c + 32), load256(c + 64), load256(c + 96), u);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const Y high = _mm256_and_si256(_mm256_srli_epi16(u[v], 4), low);
      part[0][v] = _mm256_add_epi16(part[0][v], _mm256_maddubs_epi16(_mm256_and_si256(u[v], low), w));
      part[1][v] = _mm256_add_epi16(part[1][v], _mm256_maddubs_epi16(high, w));
    }
  };
  for (size_t j = 0; j < columns; j += 4 * kAdds) {
    for (auto& digit : part) for (Y& p : digit) p = _mm256_setzero_si256();
    const size_t end = least(columns, j + 4 * kAdds);
    size_t i = j;
    for (; i + 4 <= end; i += 4) step(codes + 32 * i, weights + i);
    if (i < end) step(Tail<4>(codes + 32 * i, end - i).bytes, weights + i);
    for (int d = 0; d < 2; ++d) for (int v = 0; v < 4; ++v) sum[d][v] = add_widened(sum[d][v], part[d][v]);
  }
  store_rows(sum[0], out);
  store_rows(sum[1], out + 32);
}

// Bytes 8 h .. 8 h + 8 of eight columns of 16 bytes: lane L holds columns 4 L .. 4 L + 4, dword i
// of out[v] byte 8 h + 4 v + i.
template <int H>
ZIPML_INLINE void interleave_half(const uint8_t* c, Y out[2]) {
  const auto two = [&](int column) __attribute__((always_inline)) {
    const auto at = [&](int j) __attribute__((always_inline)) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(c + 16 * j));
    };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(at(column)), at(column + 4), 1);
  };
  const Y x0 = two(0), x1 = two(1), x2 = two(2), x3 = two(3);
  const Y ab = H ? _mm256_unpackhi_epi8(x0, x1) : _mm256_unpacklo_epi8(x0, x1);
  const Y cd = H ? _mm256_unpackhi_epi8(x2, x3) : _mm256_unpacklo_epi8(x2, x3);
  out[0] = _mm256_unpacklo_epi16(ab, cd);
  out[1] = _mm256_unpackhi_epi16(ab, cd);
}

ZIPML_INLINE Y broadcast8(const int8_t* entries) {  // four entries to each lane
  int64_t eight;
  std::memcpy(&eight, entries, 8);
  return _mm256_permutevar8x32_epi32(_mm256_set1_epi64x(eight), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}

// Rows of half H of each digit, added over both lanes. Digits 1 and 3 stay in place: four times
// their worth, taken out at the end.
template <int H>
ZIPML_INLINE void rows_half(const uint8_t* codes, size_t columns, const int8_t* weights, int32_t* out) {
  const Y masks[2] = {_mm256_set1_epi8(3), _mm256_set1_epi8(12)};
  Y sum[4][2], part[4][2];
  for (auto& digit : sum) for (Y& s : digit) s = _mm256_setzero_si256();
  const auto step = [&](const uint8_t* c, const int8_t* eight) __attribute__((always_inline)) {
    const Y w = broadcast8(eight);
    Y u[2];
    interleave_half<H>(c, u);
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const Y upper = _mm256_srli_epi16(u[v], 4);
#pragma GCC unroll 4
      for (int d = 0; d < 4; ++d) {
        const Y digit = _mm256_and_si256(d < 2 ? u[v] : upper, masks[d % 2]);
        part[d][v] = _mm256_add_epi16(part[d][v], _mm256_maddubs_epi16(digit, w));
      }
    }
  };
  for (size_t j = 0; j < columns; j += 8 * kAdds) {
    for (auto& digit : part) for (Y& p : digit) p = _mm256_setzero_si256();
    const size_t end = least(columns, j + 8 * kAdds);
    size_t i = j;
    for (; i + 8 <= end; i += 8) step(codes + 16 * i, weights + i);
    if (i < end) step(Tail<2>(codes + 16 * i, end - i).bytes, weights + i);
    for (int d = 0; d < 4; ++d) for (int v = 0; v < 2; ++v) sum[d][v] = add_widened(sum[d][v], part[d][v]);
  }
  for (int d = 0; d < 4; ++d) {
    for (int v = 0; v < 2; ++v) {
      const __m128i both = _mm_add_epi32(_mm256_castsi256_si128(sum[d][v]),
                                         _mm256_extracti128_si256(sum[d][v], 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * d + 8 * H + 4 * v),
                       _mm_srai_epi32(both, d % 2 ? 2 : 0));
    }
  }
}

template <>
inline void dot_rows<2>(const uint8_t* codes, size_t columns, const int8_t* weights, int32_t out[64]) {
  rows_half<0>(codes, columns, weights, out);
  rows_half<1>(codes, columns, weights, out);
}

template <>
inline void dot_rows<1>(const uint8_t* codes, size_t columns, const int8_t* weights, int32_t out[64]) {
  // Dwords 0, 2, 4, 6 (bytes 0-3 of four columns) to the lower lane, then bytes to groups.
  const Y halves = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
  const Y groups = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  Y masks[4], sum[8], part[8];
  for (int i = 0; i < 4; ++i) masks[i] = _mm256_set1_epi8(static_cast<char>(1 << i));
  for (Y& s : sum) s = _mm256_setzero_si256();
  const auto step = [&](const uint8_t* c, const int8_t* four) __attribute__((always_inline)) {
    const Y w = broadcast4(four);
    const Y u = _mm256_shuffle_epi8(_mm256_permutevar8x32_epi32(load256(c), halves), groups);
    const Y upper = _mm256_srli_epi16(u, 4);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const Y digit = _mm256_and_si256(i < 4 ? u : upper, masks[i % 4]);
      part[i] = _mm256_add_epi16(part[i], _mm256_maddubs_epi16(digit, w));
    }
  };
  for (size_t j = 0; j < columns; j += 8 * kAdds) {
    for (Y& p : part) p = _mm256_setzero_si256();
    const size_t end = least(columns, j + 8 * kAdds);
    size_t i = j;
    for (; i + 4 <= end; i += 4) step(codes + 8 * i, weights + i);
    if (i < end) step(Tail<1>(codes + 8 * i, end - i).bytes, weights + i);
    for (int d = 0; d < 8; ++d) sum[d] = add_widened(sum[d], part[d]);
  }
  for (int d = 0; d < 8; ++d) store256(out + 8 * d, _mm256_srai_epi32(sum[d], d % 4));
}

// Brings some columns of a tile near.
ZIPML_INLINE void fetch(const uint8_t* tile, size_t column_bytes, size_t j, size_t columns) {
  for (size_t i = 0; i < columns * column_bytes; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(tile) + column_bytes * j + i, _MM_HINT_T1);
  }
}

ZIPML_INLINE Y hadd(Y a, Y b) { return _mm256_hadd_epi32(a, b); }

template <int W>
struct Digits {
  static ZIPML_INLINE void arrange(const int8_t* r, Y* out) {
    for (int i = 0; i < 8 / W; ++i) {
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
  // Products of the 32 bytes of 8 / W (at most 4) columns, in 16 bits: at most 2032 * W^2 ... 7620
  // a tile, so that four tiles fit.
  static ZIPML_INLINE Y dot(Y a, const Y* r) {
    const Y mask = _mm256_set1_epi8((1 << W) - 1);
    Y sum = _mm256_maddubs_epi16(_mm256_and_si256(a, mask), r[0]);
#pragma GCC unroll 8
    for (int i = 1; i < 8 / W; ++i) {
      const Y digit = _mm256_and_si256(_mm256_srli_epi16(a, i * W), mask);
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(digit, r[i]));
    }
    return sum;
  }
};

// Sums of eight columns as 32 bits, from the vectors that `vector(v)` gives: eight of one column
// each, four of two, or two of four.
template <int W, class F>
ZIPML_INLINE Y eight_columns(F&& vector) {
  if constexpr (W >= 4) {
    const Y a = hadd(hadd(vector(0), vector(1)), hadd(vector(2), vector(3)));
    const Y b = hadd(hadd(vector(4), vector(5)), hadd(vector(6), vector(7)));
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
  } else if constexpr (W == 2) {
    const Y s = hadd(hadd(vector(0), vector(1)), hadd(vector(2), vector(3)));
    return _mm256_permutevar8x32_epi32(s, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  } else {
    const Y s = hadd(vector(0), vector(1));
    return _mm256_permutevar8x32_epi32(s, _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7));
  }
}

template <size_t Tiles, class Source>
inline void byte_columns_of(const Source* sources, const uint8_t* const* ahead, size_t columns,
                            const int8_t* residuals, int32_t* out) {
  Y r[Tiles][2];
  for (size_t t = 0; t < Tiles; ++t) {
    for (int h = 0; h < 2; ++h) r[t][h] = load256(residuals + 64 * t + 32 * h);
  }
  const auto eight = [&](size_t j, size_t left) __attribute__((always_inline)) {
    return eight_columns<8>([&](size_t v) __attribute__((always_inline)) {
      Y sum = _mm256_setzero_si256();
      if (v >= left) return sum;
#pragma GCC unroll 4
      for (size_t t = 0; t < Tiles; ++t) {
        const ByteColumn c = sources[t].column(j + v);
        sum = add_widened(sum, _mm256_maddubs_epi16(c.half[0], r[t][0]));
        sum = add_widened(sum, _mm256_maddubs_epi16(c.half[1], r[t][1]));
      }
      return sum;
    });
  };
  size_t j = 0;
  for (; j + 8 <= columns; j += 8) {
    for (size_t t = 0; t < Tiles; t += 2) fetch(ahead[t], Source::kColumnBytes, j, 8);
    store256(out + j, eight(j, 8));
  }
  if (j < columns) store256(out + j, eight(j, columns - j));
}

template <int W, size_t Tiles>
inline void dot_columns_of(const uint8_t* const* tiles, const uint8_t* const* ahead, size_t columns,
                           const int8_t* residuals, int32_t* out) {
  Y r[Tiles][8 / W];
  for (size_t t = 0; t < Tiles; ++t) Digits<W>::arrange(residuals + 64 * t, r[t]);
  const auto eight = [&](const uint8_t* const* at) __attribute__((always_inline)) {
    return eight_columns<W>([&](size_t v) __attribute__((always_inline)) {
      Y sum = Digits<W>::dot(load256(at[0] + 32 * v), r[0]);
#pragma GCC unroll 4
      for (size_t t = 1; t < Tiles; ++t) {
        sum = _mm256_add_epi16(sum, Digits<W>::dot(load256(at[t] + 32 * v), r[t]));
      }
      return widen(sum);
    });
  };
  const uint8_t* at[Tiles];
  size_t j = 0;
  for (; j + 8 <= columns; j += 8) {
    for (size_t t = 0; t < Tiles; t += 2) fetch(ahead[t], 8 * W, j, 8);
    for (size_t t = 0; t < Tiles; ++t) at[t] = tiles[t] + 8 * W * j;
    store256(out + j, eight(at));
  }
  if (j < columns) {
    alignas(32) uint8_t tails[Tiles][64 * W];
    for (size_t t = 0; t < Tiles; ++t) {
      std::memset(tails[t], 0, 64 * W);
      std::memcpy(tails[t], tiles[t] + 8 * W * j, 8 * W * (columns - j));
      at[t] = tails[t];
    }
    store256(out + j, eight(at));
  }
}

template <int W>
inline void dot_columns(const uint8_t* const* tiles, const uint8_t* const* ahead, size_t count,
                        size_t columns, const int8_t* residuals, int32_t* out) {
  switch (count) {
    case 1: return dot_columns_of<W, 1>(tiles, ahead, columns, residuals, out);
    case 2: return dot_columns_of<W, 2>(tiles, ahead, columns, residuals, out);
    case 3: return dot_columns_of<W, 3>(tiles, ahead, columns, residuals, out);
    default: return dot_columns_of<W, 4>(tiles, ahead, columns, residuals, out);
  }
}

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
