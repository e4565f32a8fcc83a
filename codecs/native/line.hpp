// Sixteen values next to each other, in as many vectors as the instruction set needs. The
// operators of GCC's vector types do the arithmetic; what follows is what they cannot say.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "isa.hpp"
#include "layout.hpp"

namespace zipml {
namespace ZIPML_ISA {

constexpr size_t kLanes = 16;

#if defined(__AVX512F__)
constexpr size_t kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr size_t kVectorBytes = 32;
#else
constexpr size_t kVectorBytes = 16;
#endif

template <class T>
struct Line {
  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  static constexpr size_t kParts = kLanes * sizeof(T) / kVectorBytes;
  static constexpr size_t kPartLanes = kLanes / kParts;
  Vector part[kParts];

  // Vector by vector: a copy of all of them goes through memory.
  ZIPML_INLINE void load(const T* from) {
    for (size_t k = 0; k < kParts; ++k) std::memcpy(part + k, from + k * kPartLanes, kVectorBytes);
  }
  ZIPML_INLINE void store(T* to) const {
    for (size_t k = 0; k < kParts; ++k) std::memcpy(to + k * kPartLanes, part + k, kVectorBytes);
  }
  ZIPML_INLINE void fill(T x) {
    for (size_t k = 0; k < kParts; ++k) part[k] = x - Vector{};
  }
};

// Sixteen codes of one byte.
typedef uint8_t Codes __attribute__((vector_size(kLanes)));

ZIPML_INLINE Codes load_codes(const uint8_t* from) {
  Codes codes;
  std::memcpy(&codes, from, sizeof(codes));
  return codes;
}

ZIPML_INLINE void widen(Codes codes, Line<float>& out) {
  using V = Line<float>::Vector;
#if defined(__AVX512F__)
  out.part[0] = (V)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32((__m128i)codes));
#elif defined(__AVX2__)
  const __m128i z = (__m128i)codes;
  out.part[0] = (V)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(z));
  out.part[1] = (V)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(z, 8)));
#elif defined(__SSE2__)
  const __m128i z = (__m128i)codes, zero = _mm_setzero_si128();
  const __m128i a = _mm_unpacklo_epi8(z, zero), b = _mm_unpackhi_epi8(z, zero);
  out.part[0] = (V)_mm_cvtepi32_ps(_mm_unpacklo_epi16(a, zero));
  out.part[1] = (V)_mm_cvtepi32_ps(_mm_unpackhi_epi16(a, zero));
  out.part[2] = (V)_mm_cvtepi32_ps(_mm_unpacklo_epi16(b, zero));
  out.part[3] = (V)_mm_cvtepi32_ps(_mm_unpackhi_epi16(b, zero));
#else
  for (size_t l = 0; l < kLanes; ++l) out.part[l / 4][l % 4] = float(codes[l]);
#endif
}

ZIPML_INLINE void widen(Codes codes, Line<double>& out) {
  using V = Line<double>::Vector;
#if defined(__AVX512F__)
  const __m128i z = (__m128i)codes;
  out.part[0] = (V)_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(z));
  out.part[1] = (V)_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_srli_si128(z, 8)));
#elif defined(__AVX2__)
  const __m128i z = (__m128i)codes;
  out.part[0] = (V)_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(z));
  out.part[1] = (V)_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_srli_si128(z, 4)));
  out.part[2] = (V)_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_srli_si128(z, 8)));
  out.part[3] = (V)_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_srli_si128(z, 12)));
#elif defined(__SSE2__)
  const __m128i z = (__m128i)codes, zero = _mm_setzero_si128();
  const __m128i a = _mm_unpacklo_epi8(z, zero), b = _mm_unpackhi_epi8(z, zero);
  const __m128i four[4] = {_mm_unpacklo_epi16(a, zero), _mm_unpackhi_epi16(a, zero),
                           _mm_unpacklo_epi16(b, zero), _mm_unpackhi_epi16(b, zero)};
  for (size_t k = 0; k < 4; ++k) {
    out.part[2 * k] = (V)_mm_cvtepi32_pd(four[k]);
    out.part[2 * k + 1] = (V)_mm_cvtepi32_pd(_mm_unpackhi_epi64(four[k], four[k]));
  }
#else
  for (size_t l = 0; l < kLanes; ++l) out.part[l / 2][l % 2] = double(codes[l]);
#endif
}

// lo + code * step, and hi for codes from `top` on, where the instruction set has masks: the sum of
// a lane that is masked out stays what it was. False where it has not.
template <class T>
ZIPML_INLINE bool masked_levels(Codes codes, uint8_t top, const Line<T>& lo, const Line<T>& hi,
                                const Line<T>& step, Line<T>& out) {
#if defined(__AVX512F__)
  const __m128i last = _mm_set1_epi8(static_cast<char>(top));
  const __mmask16 below = _mm_cmplt_epu8_mask((__m128i)codes, last);
  widen(codes, out);
  for (size_t k = 0; k < Line<T>::kParts; ++k) {
    const auto sum = lo.part[k], most = hi.part[k], product = out.part[k] * step.part[k];
    using V = typename Line<T>::Vector;
    if constexpr (sizeof(T) == 4) {
      out.part[k] = (V)_mm512_mask_add_ps((__m512)most, below, (__m512)sum, (__m512)product);
    } else {
      const __mmask8 these = static_cast<__mmask8>(below >> (8 * k));
      out.part[k] = (V)_mm512_mask_add_pd((__m512d)most, these, (__m512d)sum, (__m512d)product);
    }
  }
  return true;
#else
  (void)codes, (void)top, (void)lo, (void)hi, (void)step, (void)out;
  return false;
#endif
}

// Rounds to the nearest half, as round_to_half of grid.hpp.
ZIPML_INLINE void round_to_halves(Line<float>::Vector& x) {
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  using V = Line<float>::Vector;
  const Bits sign = (Bits)x & 0x80000000u;
  const V a = (V)((Bits)x & 0x7FFFFFFFu);
  const Bits small = (Bits)((a + 0.5f) - 0.5f);  // halves below 2^-14 are multiples of 2^-24
  const Bits u = (Bits)a;
  const Bits normal = (u + 0x0FFFu + ((u >> 13) & 1u)) & ~0x1FFFu;
  x = (V)((a < 6.103515625e-05f ? small : normal) | sign);
}
ZIPML_INLINE void round_to_halves(Line<double>::Vector&) {}  // never called

}  // namespace ZIPML_ISA
}  // namespace zipml
