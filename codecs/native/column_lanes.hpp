// Lanes: one vector register's worth of neighbouring columns, and what encoding does with them.
//
// Vectors are those of the compiler (GCC and Clang), so that + - * / & | ^ << >> and comparisons
// need no names here. What the language does not have is spelled out for AVX-512, for AVX2 and in
// plain loops; all three give the same bits.
#pragma once

#if defined(__x86_64__)
// GCC 12 warns of the undefined operands that its own header passes on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "grid.hpp"

namespace zipml {
namespace ZIPML_ISA {

#if defined(__AVX512BW__)
constexpr size_t kLanes = 16;
#elif defined(__AVX2__)
constexpr size_t kLanes = 8;
#else
constexpr size_t kLanes = 4;
#endif
constexpr size_t kVectorBytes = 4 * kLanes;

#define ZIPML_VECTOR __attribute__((vector_size(kVectorBytes), may_alias))
typedef float Floats ZIPML_VECTOR;
typedef uint32_t Words ZIPML_VECTOR;   // one 32-bit number a lane
typedef uint16_t Halves ZIPML_VECTOR;  // two 16-bit numbers a lane: an even row (low), an odd one
typedef uint64_t Quads ZIPML_VECTOR;   // every other lane
typedef double HalfDoubles ZIPML_VECTOR;
typedef int64_t QuadMask ZIPML_VECTOR;
#undef ZIPML_VECTOR

// Doubles for all lanes take two registers.
struct Doubles {
  HalfDoubles a, b;
};
ZIPML_INLINE Doubles operator+(Doubles x, Doubles y) { return {x.a + y.a, x.b + y.b}; }
ZIPML_INLINE Doubles operator-(Doubles x, Doubles y) { return {x.a - y.a, x.b - y.b}; }
ZIPML_INLINE Doubles operator*(Doubles x, Doubles y) { return {x.a * y.a, x.b * y.b}; }
ZIPML_INLINE Doubles operator/(Doubles x, Doubles y) { return {x.a / y.a, x.b / y.b}; }

template <class T>
struct LanesOf;
template <>
struct LanesOf<float> {
  using type = Floats;
};
template <>
struct LanesOf<double> {
  using type = Doubles;
};

template <class V, class T>
ZIPML_INLINE V load_as(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
ZIPML_INLINE Floats load(const float* from) { return load_as<Floats>(from); }
ZIPML_INLINE Doubles load(const double* from) { return load_as<Doubles>(from); }
ZIPML_INLINE void store(void* to, Floats v) { std::memcpy(to, &v, sizeof v); }
ZIPML_INLINE void store(void* to, const Doubles& v) { std::memcpy(to, &v, sizeof v); }

ZIPML_INLINE Floats spread(float x) { return x - Floats{}; }
ZIPML_INLINE Doubles spread(double x) { return {x - HalfDoubles{}, x - HalfDoubles{}}; }
ZIPML_INLINE Words spread_word(uint32_t x) { return x + Words{}; }
ZIPML_INLINE Quads spread_quad(uint64_t x) { return x + Quads{}; }
ZIPML_INLINE Halves spread_half(uint16_t x) { return x + Halves{}; }

ZIPML_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

// What follows, on floats and doubles:
//   greater(x, y), lesser(x, y): y where either is NaN
//   with_sign(x, y): x >= 0 with the sign of y
//   sum_or_top(x, y, code, top, hi): hi where code is top, else x + y
//   limited(level, code, top, hi): hi where code >= top, else no more than hi
//   magnitude(x): without its sign
//   Beyond: whether any value seen was not between its bounds
// On halves:
//   product_high: bits 16 to 31 of the products; monus: x - y, or 0
//   plus_less(x, a, b): x + (a < b)
//   add_products(sum, x, y): adds the signed products of both halves of each lane to the word `sum`
// On words: low_halves(x, y), high_halves(x, y): of x the even row, of y the odd one
// On quads: wide_product: of the low words.

#if defined(__AVX512BW__)


ZIPML_INLINE Floats greater(Floats x, Floats y) { return (Floats)_mm512_max_ps((__m512)x, (__m512)y); }
ZIPML_INLINE Floats lesser(Floats x, Floats y) { return (Floats)_mm512_min_ps((__m512)x, (__m512)y); }
ZIPML_INLINE HalfDoubles greater(HalfDoubles x, HalfDoubles y) {
  return (HalfDoubles)_mm512_max_pd((__m512d)x, (__m512d)y);
}
ZIPML_INLINE HalfDoubles lesser(HalfDoubles x, HalfDoubles y) {
  return (HalfDoubles)_mm512_min_pd((__m512d)x, (__m512d)y);
}

// 0xF8 is a | (b & c), 0xD8 chooses by the last operand, 0x96 is the exclusive or of three.
ZIPML_INLINE Floats with_sign(Floats x, Floats y) {
  return (Floats)_mm512_ternarylogic_epi32((__m512i)x, (__m512i)y, _mm512_set1_epi32(INT32_MIN), 0xF8);
}
ZIPML_INLINE HalfDoubles with_sign(HalfDoubles x, HalfDoubles y) {
  return (HalfDoubles)_mm512_ternarylogic_epi64((__m512i)x, (__m512i)y, _mm512_set1_epi64(INT64_MIN), 0xF8);
}
ZIPML_INLINE Floats magnitude(Floats x) { return (Floats)_mm512_abs_ps((__m512)x); }
ZIPML_INLINE HalfDoubles magnitude(HalfDoubles x) { return (HalfDoubles)_mm512_abs_pd((__m512d)x); }
ZIPML_INLINE Floats sum_or_top(Floats x, Floats y, Floats code, Floats top, Floats hi) {
  const __mmask16 inner = _mm512_cmp_ps_mask((__m512)code, (__m512)top, _CMP_NEQ_UQ);
  return (Floats)_mm512_mask_add_ps((__m512)hi, inner, (__m512)x, (__m512)y);
}
ZIPML_INLINE HalfDoubles sum_or_top(HalfDoubles x, HalfDoubles y, HalfDoubles code, HalfDoubles top,
                                    HalfDoubles hi) {
  const __mmask8 inner = _mm512_cmp_pd_mask((__m512d)code, (__m512d)top, _CMP_NEQ_UQ);
  return (HalfDoubles)_mm512_mask_add_pd((__m512d)hi, inner, (__m512d)x, (__m512d)y);
}
ZIPML_INLINE Floats limited(Floats level, Floats code, Floats top, Floats hi) {
  const __mmask16 inner = _mm512_cmp_ps_mask((__m512)code, (__m512)top, _CMP_LT_OQ);
  return (Floats)_mm512_mask_min_ps((__m512)hi, inner, (__m512)level, (__m512)hi);
}
ZIPML_INLINE HalfDoubles limited(HalfDoubles level, HalfDoubles code, HalfDoubles top, HalfDoubles hi) {
  const __mmask8 inner = _mm512_cmp_pd_mask((__m512d)code, (__m512d)top, _CMP_LT_OQ);
  return (HalfDoubles)_mm512_mask_min_pd((__m512d)hi, inner, (__m512d)level, (__m512d)hi);
}
ZIPML_INLINE Floats rounded_to_half(Floats x) {
  return (Floats)_mm512_cvtph_ps(_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

struct Beyond {
  __mmask16 low = 0xFFFF, high = 0xFFFF;
  ZIPML_INLINE void look(Floats x, Floats lower, Floats upper) {
    low = _mm512_mask_cmp_ps_mask(low, (__m512)x, (__m512)lower, _CMP_GE_OQ);
    high = _mm512_mask_cmp_ps_mask(high, (__m512)x, (__m512)upper, _CMP_LE_OQ);
  }
  ZIPML_INLINE void look(HalfDoubles x, HalfDoubles lower, HalfDoubles upper) {
    low = 0xFF00 | _mm512_mask_cmp_pd_mask(static_cast<__mmask8>(low), (__m512d)x, (__m512d)lower, _CMP_GE_OQ);
    high = 0xFF00 | _mm512_mask_cmp_pd_mask(static_cast<__mmask8>(high), (__m512d)x, (__m512d)upper, _CMP_LE_OQ);
  }
  ZIPML_INLINE bool any() const { return (low & high) != 0xFFFF; }
};

ZIPML_INLINE Words low_words(Doubles x) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return (Words)_mm512_permutex2var_epi32((__m512i)x.a, even, (__m512i)x.b);
}
ZIPML_INLINE Doubles to_doubles(Words x) {
  return {(HalfDoubles)_mm512_cvtepi32_pd(_mm512_castsi512_si256((__m512i)x)),
          (HalfDoubles)_mm512_cvtepi32_pd(_mm512_extracti64x4_epi64((__m512i)x, 1))};
}

ZIPML_INLINE Halves product_high(Halves x, Halves y) {
  return (Halves)_mm512_mulhi_epu16((__m512i)x, (__m512i)y);
}
ZIPML_INLINE Halves monus(Halves x, Halves y) { return (Halves)_mm512_subs_epu16((__m512i)x, (__m512i)y); }
ZIPML_INLINE Halves plus_less(Halves x, Halves a, Halves b) {
  const __mmask32 less = _mm512_cmplt_epu16_mask((__m512i)a, (__m512i)b);
  return (Halves)_mm512_mask_sub_epi16((__m512i)x, less, (__m512i)x, _mm512_set1_epi16(-1));
}
ZIPML_INLINE Words add_products(Words sum, Halves x, Halves y) {
  return (Words)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)x, (__m512i)y);
}
// Twice the number of each word, in both of its halves.
constexpr Words kEvenPlaces = {0x000000u, 0x020002u, 0x040004u, 0x060006u, 0x080008u, 0x0A000Au,
                               0x0C000Cu, 0x0E000Eu, 0x100010u, 0x120012u, 0x140014u, 0x160016u,
                               0x180018u, 0x1A001Au, 0x1C001Cu, 0x1E001Eu};
ZIPML_INLINE Words low_halves(Words x, Words y) {
  const __m512i places = (__m512i)(kEvenPlaces + 0x00200000u);
  return (Words)_mm512_permutex2var_epi16((__m512i)x, places, (__m512i)y);
}
ZIPML_INLINE Words high_halves(Words x, Words y) {
  const __m512i places = (__m512i)(kEvenPlaces + 0x00210001u);
  return (Words)_mm512_permutex2var_epi16((__m512i)x, places, (__m512i)y);
}
ZIPML_INLINE Quads wide_product(Quads x, Quads y) { return (Quads)_mm512_mul_epu32((__m512i)x, (__m512i)y); }
ZIPML_INLINE Quads xor3(Quads x, Quads y, Quads z) {
  return (Quads)_mm512_ternarylogic_epi64((__m512i)x, (__m512i)y, (__m512i)z, 0x96);
}
// The low words of x and y, taking turns.
ZIPML_INLINE Words zipped(Quads x, Quads y) {
  return (Words)_mm512_mask_blend_epi32(0xAAAAu, (__m512i)x, (__m512i)(y << 32));
}

#elif defined(__AVX2__)

ZIPML_INLINE Floats greater(Floats x, Floats y) { return (Floats)_mm256_max_ps((__m256)x, (__m256)y); }
ZIPML_INLINE Floats lesser(Floats x, Floats y) { return (Floats)_mm256_min_ps((__m256)x, (__m256)y); }
ZIPML_INLINE HalfDoubles greater(HalfDoubles x, HalfDoubles y) {
  return (HalfDoubles)_mm256_max_pd((__m256d)x, (__m256d)y);
}
ZIPML_INLINE HalfDoubles lesser(HalfDoubles x, HalfDoubles y) {
  return (HalfDoubles)_mm256_min_pd((__m256d)x, (__m256d)y);
}
ZIPML_INLINE Floats with_sign(Floats x, Floats y) {
  return (Floats)_mm256_or_ps((__m256)x, _mm256_and_ps((__m256)y, _mm256_set1_ps(-0.0f)));
}
ZIPML_INLINE HalfDoubles with_sign(HalfDoubles x, HalfDoubles y) {
  return (HalfDoubles)_mm256_or_pd((__m256d)x, _mm256_and_pd((__m256d)y, _mm256_set1_pd(-0.0)));
}
ZIPML_INLINE Floats magnitude(Floats x) {
  return (Floats)_mm256_andnot_ps(_mm256_set1_ps(-0.0f), (__m256)x);
}
ZIPML_INLINE HalfDoubles magnitude(HalfDoubles x) {
  return (HalfDoubles)_mm256_andnot_pd(_mm256_set1_pd(-0.0), (__m256d)x);
}
ZIPML_INLINE Floats sum_or_top(Floats x, Floats y, Floats code, Floats top, Floats hi) {
  const __m256 last = _mm256_cmp_ps((__m256)code, (__m256)top, _CMP_EQ_OQ);
  return (Floats)_mm256_blendv_ps((__m256)(x + y), (__m256)hi, last);
}
ZIPML_INLINE HalfDoubles sum_or_top(HalfDoubles x, HalfDoubles y, HalfDoubles code, HalfDoubles top,
                                    HalfDoubles hi) {
  const __m256d last = _mm256_cmp_pd((__m256d)code, (__m256d)top, _CMP_EQ_OQ);
  return (HalfDoubles)_mm256_blendv_pd((__m256d)(x + y), (__m256d)hi, last);
}
ZIPML_INLINE Floats limited(Floats level, Floats code, Floats top, Floats hi) {
  const __m256 inner = _mm256_cmp_ps((__m256)code, (__m256)top, _CMP_LT_OQ);
  return (Floats)_mm256_blendv_ps((__m256)hi, _mm256_min_ps((__m256)level, (__m256)hi), inner);
}
ZIPML_INLINE HalfDoubles limited(HalfDoubles level, HalfDoubles code, HalfDoubles top, HalfDoubles hi) {
  const __m256d inner = _mm256_cmp_pd((__m256d)code, (__m256d)top, _CMP_LT_OQ);
  return (HalfDoubles)_mm256_blendv_pd((__m256d)hi, _mm256_min_pd((__m256d)level, (__m256d)hi), inner);
}
ZIPML_INLINE Floats rounded_to_half(Floats x) {
  return (Floats)_mm256_cvtph_ps(_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

struct Beyond {
  __m256 set = _mm256_setzero_ps();
  ZIPML_INLINE void look(Floats x, Floats lower, Floats upper) {
    const __m256 out = _mm256_or_ps(_mm256_cmp_ps((__m256)x, (__m256)lower, _CMP_NGE_UQ),
                                    _mm256_cmp_ps((__m256)x, (__m256)upper, _CMP_NLE_UQ));
    set = _mm256_or_ps(set, out);
  }
  ZIPML_INLINE void look(HalfDoubles x, HalfDoubles lower, HalfDoubles upper) {
    const __m256d out = _mm256_or_pd(_mm256_cmp_pd((__m256d)x, (__m256d)lower, _CMP_NGE_UQ),
                                     _mm256_cmp_pd((__m256d)x, (__m256d)upper, _CMP_NLE_UQ));
    set = _mm256_or_ps(set, (__m256)out);
  }
  ZIPML_INLINE bool any() const { return _mm256_movemask_ps(set) != 0; }
};

ZIPML_INLINE Words low_words(Doubles x) {
  const __m256 even = _mm256_shuffle_ps((__m256)x.a, (__m256)x.b, 0x88);
  return (Words)_mm256_permute4x64_pd((__m256d)even, 0xD8);
}
ZIPML_INLINE Doubles to_doubles(Words x) {
  return {(HalfDoubles)_mm256_cvtepi32_pd(_mm256_castsi256_si128((__m256i)x)),
          (HalfDoubles)_mm256_cvtepi32_pd(_mm256_extracti128_si256((__m256i)x, 1))};
}

ZIPML_INLINE Halves product_high(Halves x, Halves y) {
  return (Halves)_mm256_mulhi_epu16((__m256i)x, (__m256i)y);
}
ZIPML_INLINE Halves monus(Halves x, Halves y) { return (Halves)_mm256_subs_epu16((__m256i)x, (__m256i)y); }
ZIPML_INLINE Halves plus_less(Halves x, Halves a, Halves b) {
  return x + (Halves)_mm256_min_epu16((__m256i)monus(b, a), _mm256_set1_epi16(1));
}
ZIPML_INLINE Words add_products(Words sum, Halves x, Halves y) {
  return sum + (Words)_mm256_madd_epi16((__m256i)x, (__m256i)y);
}
ZIPML_INLINE Words low_halves(Words x, Words y) {
  return (Words)_mm256_blend_epi16((__m256i)x, (__m256i)(y << 16), 0xAA);
}
ZIPML_INLINE Words high_halves(Words x, Words y) {
  return (Words)_mm256_blend_epi16((__m256i)(x >> 16), (__m256i)y, 0xAA);
}
ZIPML_INLINE Quads wide_product(Quads x, Quads y) { return (Quads)_mm256_mul_epu32((__m256i)x, (__m256i)y); }
ZIPML_INLINE Quads xor3(Quads x, Quads y, Quads z) { return x ^ y ^ z; }
ZIPML_INLINE Words zipped(Quads x, Quads y) {
  return (Words)_mm256_blend_epi32((__m256i)x, (__m256i)(y << 32), 0xAA);
}

#else

ZIPML_INLINE Floats greater(Floats x, Floats y) { return x > y ? x : y; }
ZIPML_INLINE Floats lesser(Floats x, Floats y) { return x < y ? x : y; }
ZIPML_INLINE HalfDoubles greater(HalfDoubles x, HalfDoubles y) { return x > y ? x : y; }
ZIPML_INLINE HalfDoubles lesser(HalfDoubles x, HalfDoubles y) { return x < y ? x : y; }
ZIPML_INLINE Floats with_sign(Floats x, Floats y) {
  return (Floats)((Words)x | ((Words)y & 0x80000000u));
}
ZIPML_INLINE HalfDoubles with_sign(HalfDoubles x, HalfDoubles y) {
  return (HalfDoubles)((Quads)x | ((Quads)y & (uint64_t{1} << 63)));
}
ZIPML_INLINE Floats magnitude(Floats x) { return (Floats)((Words)x & 0x7FFFFFFFu); }
ZIPML_INLINE HalfDoubles magnitude(HalfDoubles x) {
  return (HalfDoubles)((Quads)x & ~(uint64_t{1} << 63));
}
ZIPML_INLINE Floats sum_or_top(Floats x, Floats y, Floats code, Floats top, Floats hi) {
  return code == top ? hi : x + y;
}
ZIPML_INLINE HalfDoubles sum_or_top(HalfDoubles x, HalfDoubles y, HalfDoubles code, HalfDoubles top,
                                    HalfDoubles hi) {
  return code == top ? hi : x + y;
}
ZIPML_INLINE Floats limited(Floats level, Floats code, Floats top, Floats hi) {
  return code < top ? lesser(level, hi) : hi;
}
ZIPML_INLINE HalfDoubles limited(HalfDoubles level, HalfDoubles code, HalfDoubles top, HalfDoubles hi) {
  return code < top ? lesser(level, hi) : hi;
}
ZIPML_INLINE Floats rounded_to_half(Floats x) {
  for (size_t i = 0; i < kLanes; ++i) x[i] = round_to_half(x[i]);
  return x;
}

struct Beyond {
  Quads set{};
  ZIPML_INLINE void look(Floats x, Floats lower, Floats upper) {
    set |= ~(Quads)((x >= lower) & (x <= upper));
  }
  ZIPML_INLINE void look(HalfDoubles x, HalfDoubles lower, HalfDoubles upper) {
    set |= ~(Quads)((x >= lower) & (x <= upper));
  }
  ZIPML_INLINE bool any() const {
    uint64_t all = 0;
    for (size_t i = 0; i < kLanes / 2; ++i) all |= set[i];
    return all != 0;
  }
};

ZIPML_INLINE Words low_words(Doubles x) {
  Words low;
  for (size_t i = 0; i < kLanes / 2; ++i) {
    low[i] = static_cast<uint32_t>(((Quads)x.a)[i]);
    low[kLanes / 2 + i] = static_cast<uint32_t>(((Quads)x.b)[i]);
  }
  return low;
}
ZIPML_INLINE Doubles to_doubles(Words x) {
  Doubles d;
  for (size_t i = 0; i < kLanes / 2; ++i) {
    d.a[i] = static_cast<double>(x[i]);
    d.b[i] = static_cast<double>(x[kLanes / 2 + i]);
  }
  return d;
}

ZIPML_INLINE Words low_halves(Words x, Words y) { return (x & 0xFFFFu) | (y << 16); }
ZIPML_INLINE Words high_halves(Words x, Words y) { return (x >> 16) | (y & 0xFFFF0000u); }
ZIPML_INLINE Halves product_high(Halves x, Halves y) {
  const Words a = (Words)x, b = (Words)y;
  return (Halves)high_halves((a & 0xFFFFu) * (b & 0xFFFFu), (a >> 16) * (b >> 16));
}
ZIPML_INLINE Halves monus(Halves x, Halves y) { return (x - y) & (Halves)(x > y); }
ZIPML_INLINE Halves plus_less(Halves x, Halves a, Halves b) { return x - (Halves)(a < b); }
ZIPML_INLINE Words add_products(Words sum, Halves x, Halves y) {
  typedef int32_t Signed __attribute__((vector_size(kVectorBytes)));
  const Signed a = (Signed)x, b = (Signed)y;
  const Signed low = ((Signed)((Words)x << 16) >> 16) * ((Signed)((Words)y << 16) >> 16);
  return sum + (Words)((a >> 16) * (b >> 16)) + (Words)low;
}
ZIPML_INLINE Quads wide_product(Quads x, Quads y) { return (x & 0xFFFFFFFFu) * (y & 0xFFFFFFFFu); }
ZIPML_INLINE Quads xor3(Quads x, Quads y, Quads z) { return x ^ y ^ z; }
ZIPML_INLINE Words zipped(Quads x, Quads y) { return (Words)((x & 0xFFFFFFFFu) | (y << 32)); }

#endif

ZIPML_INLINE Doubles greater(Doubles x, Doubles y) { return {greater(x.a, y.a), greater(x.b, y.b)}; }
ZIPML_INLINE Doubles lesser(Doubles x, Doubles y) { return {lesser(x.a, y.a), lesser(x.b, y.b)}; }
ZIPML_INLINE Doubles with_sign(Doubles x, Doubles y) { return {with_sign(x.a, y.a), with_sign(x.b, y.b)}; }
ZIPML_INLINE Doubles magnitude(Doubles x) { return {magnitude(x.a), magnitude(x.b)}; }
ZIPML_INLINE Doubles sum_or_top(Doubles x, Doubles y, Doubles code, Doubles top, Doubles hi) {
  return {sum_or_top(x.a, y.a, code.a, top.a, hi.a), sum_or_top(x.b, y.b, code.b, top.b, hi.b)};
}
ZIPML_INLINE Doubles limited(Doubles level, Doubles code, Doubles top, Doubles hi) {
  return {limited(level.a, code.a, top.a, hi.a), limited(level.b, code.b, top.b, hi.b)};
}
ZIPML_INLINE void look(Beyond& beyond, Floats x, Floats lower, Floats upper) {
  beyond.look(x, lower, upper);
}
ZIPML_INLINE void look(Beyond& beyond, Doubles x, Doubles lower, Doubles upper) {
  beyond.look(x.a, lower.a, upper.a);
  beyond.look(x.b, lower.b, upper.b);
}
ZIPML_INLINE Words low_words(Floats x) { return (Words)x; }

// Levels of float16 arrays are held in floats.
template <class Round>
struct LevelRounding;
template <>
struct LevelRounding<Keep> {
  template <class V>
  static ZIPML_INLINE V level(V x) { return x; }
};
template <>
struct LevelRounding<ToHalf> {
  static ZIPML_INLINE Floats level(Floats x) { return rounded_to_half(x); }
};

}  // namespace ZIPML_ISA
}  // namespace zipml
