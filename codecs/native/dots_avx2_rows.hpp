// Products of the rows of a tile with model vectors, AVX2. Several vectors at once share the digits,
// which are brought in order and masked for a few columns at a time.
#pragma once

#include "dots_avx2.hpp"

namespace zipml {
namespace ZIPML_ISA {

ZIPML_INLINE Y broadcast4(const int8_t* entries) {
  int32_t four;
  std::memcpy(&four, entries, 4);
  return _mm256_set1_epi32(four);
}
ZIPML_INLINE Y broadcast8(const int8_t* entries) {  // four entries to each lane
  int64_t eight;
  std::memcpy(&eight, entries, 8);
  return _mm256_permutevar8x32_epi32(_mm256_set1_epi64x(eight), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
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

// What the products of rows take, a step at a time: digits of some columns in eight registers, each
// of whose dwords holds four columns of one row. The last columns may be fewer: the rest is zero.
// From kShare vectors on it pays to keep the registers' contents for all of them.
template <class Source>
struct ByteSteps {
  static constexpr size_t kColumns = 4, kColumnBytes = Source::kColumnBytes;
  static constexpr int kPasses = 1;
  static constexpr bool kWide = true;  // two products fill 16 bits
  static constexpr size_t kShare = Source::kLooksUp ? 2 : 3;
  Source source;

  template <int Pass>
  ZIPML_INLINE void step(size_t j, size_t left, Y u[8]) const {
    ByteColumn c[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      c[i] = i < left ? source.column(j + i) : ByteColumn{{_mm256_setzero_si256(), _mm256_setzero_si256()}};
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      interleave4(c[0].half[h], c[1].half[h], c[2].half[h], c[3].half[h], u + 4 * h);
    }
  }
  static ZIPML_INLINE Y weights(const int8_t* four) { return broadcast4(four); }
  template <int Pass>
  static ZIPML_INLINE void finish(const Y sum[8], int32_t* out) {
    store_rows(sum, out);
    store_rows(sum + 4, out + 32);
  }
};

// Columns of a field, and a copy of the last ones where they are fewer than a step takes.
template <int W, size_t Columns>
struct Field {
  const uint8_t* codes;
  template <class F>
  ZIPML_INLINE void with(size_t j, size_t left, F&& f) const {
    if (left >= Columns) return f(codes + 8 * W * j);
    alignas(32) uint8_t bytes[Columns * 8 * W];
    std::memset(bytes, 0, sizeof(bytes));
    std::memcpy(bytes, codes + 8 * W * j, left * 8 * W);
    f(bytes);
  }
};

template <int W>
struct Steps;

template <>
struct Steps<4> {
  static constexpr size_t kColumns = 4, kColumnBytes = 32;
  static constexpr int kPasses = 1;
  static constexpr bool kWide = false;
  static constexpr size_t kShare = 3;
  Field<4, kColumns> field;

  template <int Pass>
  ZIPML_INLINE void step(size_t j, size_t left, Y u[8]) const {
    field.with(j, left, [&](const uint8_t* c) __attribute__((always_inline)) {
      const Y low = _mm256_set1_epi8(15);
      interleave4(load256(c), load256(c + 32), load256(c + 64), load256(c + 96), u);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        u[4 + v] = _mm256_and_si256(_mm256_srli_epi16(u[v], 4), low);
        u[v] = _mm256_and_si256(u[v], low);
      }
    });
  }
  static ZIPML_INLINE Y weights(const int8_t* four) { return broadcast4(four); }
  template <int Pass>
  static ZIPML_INLINE void finish(const Y sum[8], int32_t* out) {
    store_rows(sum, out);
    store_rows(sum + 4, out + 32);
  }
};

// A pass takes one half of each column's 16 bytes. Digits 1 and 3 stay in place: four times their
// worth, taken out at the end.
template <>
struct Steps<2> {
  static constexpr size_t kColumns = 8, kColumnBytes = 16;
  static constexpr int kPasses = 2;
  static constexpr bool kWide = false;
  static constexpr size_t kShare = 3;
  Field<2, kColumns> field;

  // Lane L holds columns 4 L .. 4 L + 4; dword i of u[2 d + v] digit d of byte 8 Pass + 4 v + i.
  template <int Pass>
  ZIPML_INLINE void step(size_t j, size_t left, Y u[8]) const {
    field.with(j, left, [&](const uint8_t* c) __attribute__((always_inline)) {
      const auto two = [&](int column) __attribute__((always_inline)) {
        const auto at = [&](int k) __attribute__((always_inline)) {
          return _mm_loadu_si128(reinterpret_cast<const __m128i*>(c + 16 * k));
        };
        return _mm256_inserti128_si256(_mm256_castsi128_si256(at(column)), at(column + 4), 1);
      };
      const Y x0 = two(0), x1 = two(1), x2 = two(2), x3 = two(3);
      const Y ab = Pass ? _mm256_unpackhi_epi8(x0, x1) : _mm256_unpacklo_epi8(x0, x1);
      const Y cd = Pass ? _mm256_unpackhi_epi8(x2, x3) : _mm256_unpacklo_epi8(x2, x3);
      const Y bytes[2] = {_mm256_unpacklo_epi16(ab, cd), _mm256_unpackhi_epi16(ab, cd)};
      const Y masks[2] = {_mm256_set1_epi8(3), _mm256_set1_epi8(12)};
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const Y upper = _mm256_srli_epi16(bytes[v], 4);
#pragma GCC unroll 4
        for (int d = 0; d < 4; ++d) u[2 * d + v] = _mm256_and_si256(d < 2 ? bytes[v] : upper, masks[d % 2]);
      }
    });
  }
  static ZIPML_INLINE Y weights(const int8_t* eight) { return broadcast8(eight); }
  template <int Pass>
  static ZIPML_INLINE void finish(const Y sum[8], int32_t* out) {
    for (int d = 0; d < 4; ++d) {
      const Y lower = _mm256_permute2x128_si256(sum[2 * d], sum[2 * d + 1], 0x20);
      const Y both = _mm256_add_epi32(lower, _mm256_permute2x128_si256(sum[2 * d], sum[2 * d + 1], 0x31));
      store256(out + 16 * d + 8 * Pass, _mm256_srai_epi32(both, d % 2 ? 2 : 0));
    }
  }
};

template <>
struct Steps<1> {
  static constexpr size_t kColumns = 4, kColumnBytes = 8;
  static constexpr int kPasses = 1;
  static constexpr bool kWide = false;
  static constexpr size_t kShare = 3;
  Field<1, kColumns> field;

  template <int Pass>
  ZIPML_INLINE void step(size_t j, size_t left, Y u[8]) const {
    field.with(j, left, [&](const uint8_t* c) __attribute__((always_inline)) {
      // Dwords 0, 2, 4, 6 (bytes 0-3 of four columns) to the lower lane, then bytes to groups.
      const Y halves = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
      const Y groups = _mm256_broadcastsi128_si256(
          _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
      const Y bytes = _mm256_shuffle_epi8(_mm256_permutevar8x32_epi32(load256(c), halves), groups);
      const Y upper = _mm256_srli_epi16(bytes, 4);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        u[i] = _mm256_and_si256(i < 4 ? bytes : upper, _mm256_set1_epi8(static_cast<char>(1 << i % 4)));
      }
    });
  }
  static ZIPML_INLINE Y weights(const int8_t* four) { return broadcast4(four); }
  template <int Pass>
  static ZIPML_INLINE void finish(const Y sum[8], int32_t* out) {
    for (int d = 0; d < 8; ++d) store256(out + 8 * d, _mm256_srai_epi32(sum[d], d % 4));
  }
};

// How many times a sum of 16 bits may be added to before it is widened: 127 * 2 * 12 (the digits
// of two bits that stay in place) * 8 < 2^15.
constexpr size_t kAdds = 8;
// Vectors that share the digits of `kAdds` steps, once these are made.
constexpr size_t kSharing = 8;

template <class S>
ZIPML_INLINE void add_products(const Y u[8], Y weights, Y sum[8]) {
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) {
    const Y products = _mm256_maddubs_epi16(u[v], weights);
    sum[v] = S::kWide ? add_widened(sum[v], products) : _mm256_add_epi16(sum[v], products);
  }
}
template <class S>
ZIPML_INLINE void flush(const Y part[8], Y sum[8]) {
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) sum[v] = _mm256_add_epi32(sum[v], S::kWide ? part[v] : widen(part[v]));
}
ZIPML_INLINE void clear(Y sum[8]) {
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) sum[v] = _mm256_setzero_si256();
}

template <class S, int Pass>
inline void rows_of_one(const S& steps, size_t columns, const int8_t* weights, int32_t* out, const uint8_t* ahead) {
  Y sum[8], part[8];
  clear(sum);
  const size_t block = S::kWide ? columns : kAdds * S::kColumns;
  for (size_t j = 0; j < columns; j += block) {
    clear(part);
    const size_t end = least(columns, j + block);
    size_t i = j;
    Y u[8];
    for (; i + S::kColumns <= end; i += S::kColumns) {
      if (Pass == 0) fetch_half(ahead, S::kColumnBytes * i, S::kColumnBytes * S::kColumns);
      steps.template step<Pass>(i, S::kColumns, u);
      add_products<S>(u, S::weights(weights + i), part);
    }
    if (i < end) {
      steps.template step<Pass>(i, end - i, u);
      add_products<S>(u, S::weights(weights + i), part);
    }
    flush<S>(part, sum);
  }
  S::template finish<Pass>(sum, out);
}

// Not inlined: compilers would lift the digits out of the loop over vectors, and spill them.
template <class S>
__attribute__((noinline)) void add_ready(const Y (*ready)[8], size_t steps, const int8_t* weights, Y sum[8]) {
  Y part[8];
  clear(part);
#pragma GCC unroll 1
  for (size_t m = 0; m < steps; ++m) add_products<S>(ready[m], S::weights(weights + m * S::kColumns), part);
  flush<S>(part, sum);
}

template <class S, int Pass>
inline void rows_of_several(const S& steps, size_t columns, const int8_t* weights, size_t count,
                            size_t stride, int32_t* out, const uint8_t* ahead) {
  Y ready[kAdds][8], sum[kSharing][8];
  for (size_t n = 0; n < count; ++n) clear(sum[n]);
  for (size_t j = 0; j < columns; j += kAdds * S::kColumns) {
    size_t made = 0;
    for (size_t i = j; made < kAdds && i < columns; ++made, i += S::kColumns) {
      if (Pass == 0) fetch_half(ahead, S::kColumnBytes * i, S::kColumnBytes * S::kColumns);
      columns - i >= S::kColumns ? steps.template step<Pass>(i, S::kColumns, ready[made])
                                 : steps.template step<Pass>(i, columns - i, ready[made]);
    }
    for (size_t n = 0; n < count; ++n) add_ready<S>(ready, made, weights + n * stride + j, sum[n]);
  }
  for (size_t n = 0; n < count; ++n) S::template finish<Pass>(sum[n], out + 64 * n);
}

template <class S>
inline void rows_in_steps(const S& steps, size_t columns, const int8_t* weights, size_t count,
                          size_t stride, int32_t* out, const uint8_t* ahead) {
  for (size_t n = 0; n < count; n += kSharing) {
    const size_t now = least(kSharing, count - n);
    const int8_t* w = weights + n * stride;
    int32_t* to = out + 64 * n;
    if (now < S::kShare) {
      for (size_t i = 0; i < now; ++i) {
        rows_of_one<S, 0>(steps, columns, w + i * stride, to + 64 * i, ahead);
        if constexpr (S::kPasses == 2) rows_of_one<S, 1>(steps, columns, w + i * stride, to + 64 * i, ahead);
      }
    } else {
      rows_of_several<S, 0>(steps, columns, w, now, stride, to, ahead);
      if constexpr (S::kPasses == 2) rows_of_several<S, 1>(steps, columns, w, now, stride, to, ahead);
    }
  }
}

template <class Source>
inline void byte_rows(const Source& source, size_t columns, const int8_t* weights, size_t count,
                      size_t stride, int32_t* out, const uint8_t* ahead) {
  rows_in_steps(ByteSteps<Source>{source}, columns, weights, count, stride, out, ahead);
}
template <int W>
inline void dot_rows(const uint8_t* codes, size_t columns, const int8_t* weights, size_t count,
                     size_t stride, int32_t* out, const uint8_t* ahead) {
  rows_in_steps(Steps<W>{{codes}}, columns, weights, count, stride, out, ahead);
}

}  // namespace ZIPML_ISA
}  // namespace zipml
