// Decoded values from a scratch block to where the caller wants them: as halves, past the caches,
// with any strides.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <cmath>

#include "isa.hpp"
#include "core.hpp"
#include "layout.hpp"

namespace zipml {
namespace ZIPML_ISA {

using Half = uint16_t;  // the bits of a float16

// To the nearest half, ties to even; what is too large becomes infinite. As NumPy's astype.
ZIPML_INLINE Half to_half(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  const uint32_t sign = (u >> 16) & 0x8000u, size = u & 0x7FFFFFFFu;
  const float a = std::fabs(x);
  // Below 2^-14 a half is a multiple of 2^-24, the last digit of a float near 1/2.
  const float shifted = a + 0.5f;
  uint32_t small;
  std::memcpy(&small, &shifted, 4);
  small -= 0x3F000000u;
  const uint32_t normal = (size + 0xFFFu + ((size >> 13) & 1u) - 0x38000000u) >> 13;
  uint32_t half = size < 0x38800000u ? small : normal;
  half = size >= 0x477FF000u ? 0x7C00u : half;  // 65520 and above
  return static_cast<Half>(half | sign);
}

ZIPML_INLINE void convert(const float* __restrict in, size_t count, Half* __restrict out) {
  size_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= count; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm512_cvtps_ph(_mm512_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(__F16C__)
  for (; i + 8 <= count; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (; i < count; ++i) out[i] = to_half(in[i]);
}
ZIPML_INLINE void convert(const float*, size_t, float*) {}  // never called: nothing to convert
ZIPML_INLINE void convert(const double*, size_t, double*) {}

// Copies past the caches, whole cache lines at a time; the caller fences (fence below). A line that
// is not written whole goes through the caches: in parts it would cost a read of memory each.
ZIPML_INLINE void copy_past_caches(const void* from, void* to, size_t bytes) {
  const uint8_t* in = static_cast<const uint8_t*>(from);
  uint8_t* out = static_cast<uint8_t*>(to);
#if defined(__SSE2__)
  const size_t head = least<size_t>(bytes, (64 - reinterpret_cast<uintptr_t>(out) % 64) % 64);
  std::memcpy(out, in, head);
  size_t k = head;
  for (; k + 64 <= bytes; k += 64) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + k), _mm512_loadu_si512(in + k));
#elif defined(__AVX2__)
    const __m256i* v = reinterpret_cast<const __m256i*>(in + k);
    __m256i* w = reinterpret_cast<__m256i*>(out + k);
    const __m256i a = _mm256_loadu_si256(v), b = _mm256_loadu_si256(v + 1);
    _mm256_stream_si256(w, a);
    _mm256_stream_si256(w + 1, b);
#else
    const __m128i* v = reinterpret_cast<const __m128i*>(in + k);
    __m128i* w = reinterpret_cast<__m128i*>(out + k);
    const __m128i a = _mm_loadu_si128(v), b = _mm_loadu_si128(v + 1);
    const __m128i c = _mm_loadu_si128(v + 2), d = _mm_loadu_si128(v + 3);
    _mm_stream_si128(w, a);
    _mm_stream_si128(w + 1, b);
    _mm_stream_si128(w + 2, c);
    _mm_stream_si128(w + 3, d);
#endif
  }
  std::memcpy(out + k, in + k, bytes - k);
#else
  std::memcpy(out, in, bytes);
#endif
}

ZIPML_INLINE void fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <class Out>
ZIPML_INLINE Matrix<Out> part(const Matrix<Out>& m, size_t r, size_t rows, size_t c,
                              size_t columns) {
  return {m.data + static_cast<ptrdiff_t>(r) * m.row_stride +
              static_cast<ptrdiff_t>(c) * m.column_stride,
          rows, columns, m.row_stride, m.column_stride};
}

// Writes a block of values, `pitch` apart in its own rows, to a matrix of the same size.
template <class Out>
ZIPML_INLINE void place(const Out* __restrict from, size_t pitch, Matrix<Out> to, bool stream) {
  if (to.column_stride == 1) {
    const bool whole = pitch == to.columns && to.row_stride == static_cast<ptrdiff_t>(to.columns);
    const size_t runs = whole ? 1 : to.rows;
    const size_t bytes = (whole ? to.rows : 1) * to.columns * sizeof(Out);
    for (size_t r = 0; r < runs; ++r) {
      Out* row = to.data + static_cast<ptrdiff_t>(r) * to.row_stride;
      if (stream) {
        copy_past_caches(from + r * pitch, row, bytes);
      } else {
        std::memcpy(row, from + r * pitch, bytes);
      }
    }
    return;
  }
  for (size_t r = 0; r < to.rows; ++r) {
    Out* row = to.data + static_cast<ptrdiff_t>(r) * to.row_stride;
    for (size_t c = 0; c < to.columns; ++c) {
      row[static_cast<ptrdiff_t>(c) * to.column_stride] = from[r * pitch + c];
    }
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
