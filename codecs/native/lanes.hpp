// Sixteen lanes of floats or integers: the same operations in the same order on every instruction
// set, on as many registers as it takes. (The compiler's own vectors of 64 bytes go through memory
// where the registers are narrower.)
#pragma once

#include "isa.hpp"
#include "layout.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace zipml {
namespace ZIPML_ISA {

#if defined(__AVX512F__)
constexpr int kRegister = 64;
#elif defined(__AVX2__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif
constexpr int kParts = 64 / kRegister, kPartLanes = kRegister / 4;

typedef float FloatPart __attribute__((vector_size(kRegister)));
typedef int32_t IntPart __attribute__((vector_size(kRegister)));

template <class P>
struct Lanes {
  using Part = P;
  P part[kParts];
};
using F16 = Lanes<FloatPart>;
using I16 = Lanes<IntPart>;

template <class R, class F>
ZIPML_INLINE Lanes<R> each_part(F&& f) {
  Lanes<R> out;  // written out, for a loop would keep the parts in memory
  out.part[0] = f(0);
  if constexpr (kParts > 1) out.part[1] = f(1);
  if constexpr (kParts > 2) {
    out.part[2] = f(2);
    out.part[3] = f(3);
  }
  return out;
}

#define ZIPML_LANES_OPERATOR(op)                                                              \
  template <class P>                                                                          \
  ZIPML_INLINE Lanes<P> operator op(const Lanes<P>& a, const Lanes<P>& b) {                   \
    return each_part<P>([&](int i) __attribute__((always_inline)) { return a.part[i] op b.part[i]; }); \
  }
ZIPML_LANES_OPERATOR(+)
ZIPML_LANES_OPERATOR(-)
ZIPML_LANES_OPERATOR(*)
ZIPML_LANES_OPERATOR(/)
ZIPML_LANES_OPERATOR(&)
#undef ZIPML_LANES_OPERATOR

template <class P>
ZIPML_INLINE Lanes<P> operator-(const Lanes<P>& a) {
  return each_part<P>([&](int i) __attribute__((always_inline)) { return -a.part[i]; });
}
ZIPML_INLINE I16 operator<<(const I16& a, int by) {
  return each_part<IntPart>([&](int i) __attribute__((always_inline)) { return a.part[i] << by; });
}
ZIPML_INLINE I16 operator>>(const I16& a, int by) {
  return each_part<IntPart>([&](int i) __attribute__((always_inline)) { return a.part[i] >> by; });
}
// All ones where true.
template <class P>
ZIPML_INLINE I16 operator<(const Lanes<P>& a, const Lanes<P>& b) {
  return each_part<IntPart>([&](int i) __attribute__((always_inline)) { return a.part[i] < b.part[i]; });
}
template <class P>
ZIPML_INLINE Lanes<P>& operator+=(Lanes<P>& a, const Lanes<P>& b) { return a = a + b; }

ZIPML_INLINE F16 splat(float x) {
  return each_part<FloatPart>([&](int) __attribute__((always_inline)) { return FloatPart{} + x; });
}
ZIPML_INLINE I16 splat(int32_t x) {
  return each_part<IntPart>([&](int) __attribute__((always_inline)) { return IntPart{} + x; });
}
// Part by part: a copy of all 64 bytes would go through memory in other pieces than it is read in.
template <class V, class T>
ZIPML_INLINE V load(const T* from) {
  using P = typename V::Part;
  return each_part<P>([&](int i) __attribute__((always_inline)) {
    P p;
    std::memcpy(&p, reinterpret_cast<const char*>(from) + kRegister * i, kRegister);
    return p;
  });
}
template <class P, class T>
ZIPML_INLINE void store(T* to, const Lanes<P>& v) {
  each_part<P>([&](int i) __attribute__((always_inline)) {
    std::memcpy(reinterpret_cast<char*>(to) + kRegister * i, &v.part[i], kRegister);
    return v.part[i];
  });
}
template <class P>
ZIPML_INLINE Lanes<P> select(const I16& mask, const Lanes<P>& yes, const Lanes<P>& no) {
  return each_part<P>([&](int i) __attribute__((always_inline)) { return mask.part[i] ? yes.part[i] : no.part[i]; });
}
// b where it is smaller (larger) than a, else a, which is what one instruction does, NaN included.
ZIPML_INLINE F16 smaller(const F16& a, const F16& b) {
  return each_part<FloatPart>([&](int i) __attribute__((always_inline)) {
#if defined(__AVX512F__)
    return reinterpret_cast<FloatPart>(_mm512_min_ps(reinterpret_cast<__m512>(b.part[i]), reinterpret_cast<__m512>(a.part[i])));
#elif defined(__AVX2__)
    return reinterpret_cast<FloatPart>(_mm256_min_ps(reinterpret_cast<__m256>(b.part[i]), reinterpret_cast<__m256>(a.part[i])));
#else
    return b.part[i] < a.part[i] ? b.part[i] : a.part[i];
#endif
  });
}
ZIPML_INLINE F16 larger(const F16& a, const F16& b) {
  return each_part<FloatPart>([&](int i) __attribute__((always_inline)) {
#if defined(__AVX512F__)
    return reinterpret_cast<FloatPart>(_mm512_max_ps(reinterpret_cast<__m512>(b.part[i]), reinterpret_cast<__m512>(a.part[i])));
#elif defined(__AVX2__)
    return reinterpret_cast<FloatPart>(_mm256_max_ps(reinterpret_cast<__m256>(b.part[i]), reinterpret_cast<__m256>(a.part[i])));
#else
    return a.part[i] < b.part[i] ? b.part[i] : a.part[i];
#endif
  });
}
ZIPML_INLINE I16 larger(const I16& a, const I16& b) {
  return each_part<IntPart>([&](int i) __attribute__((always_inline)) {
#if defined(__AVX512F__)
    return reinterpret_cast<IntPart>(_mm512_max_epi32(reinterpret_cast<__m512i>(b.part[i]), reinterpret_cast<__m512i>(a.part[i])));
#elif defined(__AVX2__)
    return reinterpret_cast<IntPart>(_mm256_max_epi32(reinterpret_cast<__m256i>(b.part[i]), reinterpret_cast<__m256i>(a.part[i])));
#else
    return a.part[i] < b.part[i] ? b.part[i] : a.part[i];
#endif
  });
}
ZIPML_INLINE F16 as_float(const I16& v) {
  return each_part<FloatPart>([&](int i) __attribute__((always_inline)) {
    return reinterpret_cast<FloatPart>(v.part[i]);
  });
}
ZIPML_INLINE I16 as_int(const F16& v) {
  return each_part<IntPart>([&](int i) __attribute__((always_inline)) {
    return reinterpret_cast<IntPart>(v.part[i]);
  });
}
ZIPML_INLINE F16 magnitude(const F16& v) { return as_float(as_int(v) & splat(0x7FFFFFFF)); }
ZIPML_INLINE F16 to_float(const I16& v) {
  return each_part<FloatPart>([&](int i) __attribute__((always_inline)) {
    return __builtin_convertvector(v.part[i], FloatPart);
  });
}
ZIPML_INLINE I16 truncate(const F16& v) {
  return each_part<IntPart>([&](int i) __attribute__((always_inline)) {
    return __builtin_convertvector(v.part[i], IntPart);
  });
}
// The largest whole number not above v, for |v| < 2^31.
ZIPML_INLINE F16 floor(const F16& v) {
  return each_part<FloatPart>([&](int i) __attribute__((always_inline)) {
#if defined(__AVX512F__)
    return reinterpret_cast<FloatPart>(_mm512_roundscale_ps(reinterpret_cast<__m512>(v.part[i]), _MM_FROUND_FLOOR));
#elif defined(__AVX2__)
    return reinterpret_cast<FloatPart>(_mm256_floor_ps(reinterpret_cast<__m256>(v.part[i])));
#else
    const FloatPart t = __builtin_convertvector(__builtin_convertvector(v.part[i], IntPart), FloatPart);
    return v.part[i] < t ? t - 1.0f : t;
#endif
  });
}

// Sixteen bytes, or halves, as integers; and the other way, for numbers that fit a signed byte.
ZIPML_INLINE I16 widen_bytes(const uint8_t* from) {
  return each_part<IntPart>([&](int i) __attribute__((always_inline)) {
    const uint8_t* at = from + kPartLanes * i;
#if defined(__AVX512F__)
    return reinterpret_cast<IntPart>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
#elif defined(__AVX2__)
    return reinterpret_cast<IntPart>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))));
#else
    return IntPart{at[0], at[1], at[2], at[3]};
#endif
  });
}
ZIPML_INLINE I16 widen_halves(const uint16_t* from) {
  return each_part<IntPart>([&](int i) __attribute__((always_inline)) {
    const uint16_t* at = from + kPartLanes * i;
#if defined(__AVX512F__)
    return reinterpret_cast<IntPart>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))));
#elif defined(__AVX2__)
    return reinterpret_cast<IntPart>(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
#else
    return IntPart{at[0], at[1], at[2], at[3]};
#endif
  });
}
ZIPML_INLINE void store_bytes(int8_t* to, const I16& v) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(v.part[0])));
#elif defined(__AVX2__)
  const __m256i halves = _mm256_packs_epi32(reinterpret_cast<__m256i>(v.part[0]), reinterpret_cast<__m256i>(v.part[1]));
  const __m256i ordered = _mm256_permute4x64_epi64(halves, 0xD8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
#else
  for (int i = 0; i < 16; ++i) to[i] = static_cast<int8_t>(v.part[i / 4][i % 4]);
#endif
}

// Sum in a fixed order: lanes that are 8, 4, 2 and 1 apart.
ZIPML_INLINE float lane_sum(const F16& v) {
  typedef float Four __attribute__((vector_size(16)));
  Four four[4];
#if defined(__AVX512F__)
  const __m512 all = reinterpret_cast<__m512>(v.part[0]);
  four[0] = reinterpret_cast<Four>(_mm512_castps512_ps128(all));
  four[1] = reinterpret_cast<Four>(_mm512_extractf32x4_ps(all, 1));
  four[2] = reinterpret_cast<Four>(_mm512_extractf32x4_ps(all, 2));
  four[3] = reinterpret_cast<Four>(_mm512_extractf32x4_ps(all, 3));
#elif defined(__AVX2__)
  for (int i = 0; i < 2; ++i) {
    const __m256 half = reinterpret_cast<__m256>(v.part[i]);
    four[2 * i] = reinterpret_cast<Four>(_mm256_castps256_ps128(half));
    four[2 * i + 1] = reinterpret_cast<Four>(_mm256_extractf128_ps(half, 1));
  }
#else
  for (int i = 0; i < 4; ++i) four[i] = v.part[i];
#endif
  const Four s = (four[0] + four[2]) + (four[1] + four[3]);
  return (s[0] + s[2]) + (s[1] + s[3]);
}

// Whole vectors that hold `size` numbers.
ZIPML_INLINE constexpr size_t padded(size_t size) { return (size + 15) / 16 * 16; }

// Eight doubles, for sums whose cancellation single precision would not bear.
struct DoubleLanes {
  double lane[8];
};
ZIPML_INLINE double lane_sum(const DoubleLanes& v) {
  const double* l = v.lane;
  return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

}  // namespace ZIPML_ISA
}  // namespace zipml
