// Sixteen lanes of floats or integers: the same operations in the same order on every instruction
// set, which the compiler cuts into as many registers as it takes.
#pragma once

#include "isa.hpp"
#include "layout.hpp"

namespace zipml {
namespace ZIPML_ISA {

typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef uint32_t U16 __attribute__((vector_size(64)));
typedef uint8_t B16 __attribute__((vector_size(16)));
typedef int8_t S16 __attribute__((vector_size(16)));
typedef uint16_t H16 __attribute__((vector_size(32)));
typedef float F8 __attribute__((vector_size(32)));
typedef double D8 __attribute__((vector_size(64)));

template <class V, class T>
ZIPML_INLINE V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}
template <class V, class T>
ZIPML_INLINE void store(T* to, V v) {
  std::memcpy(to, &v, sizeof(V));
}
ZIPML_INLINE F16 splat(float x) { return F16{} + x; }
ZIPML_INLINE F16 to_float(I16 v) { return __builtin_convertvector(v, F16); }
ZIPML_INLINE I16 truncate(F16 v) { return __builtin_convertvector(v, I16); }
ZIPML_INLINE F16 smaller(F16 a, F16 b) { return b < a ? b : a; }
ZIPML_INLINE F16 larger(F16 a, F16 b) { return a < b ? b : a; }
ZIPML_INLINE F16 magnitude(F16 v) {
  return reinterpret_cast<F16>(reinterpret_cast<U16>(v) & 0x7FFFFFFFu);
}
// Whole numbers not above, for |v| < 2^31.
ZIPML_INLINE I16 floor_int(F16 v) {
  const I16 t = truncate(v);
  return t + (to_float(t) > v);
}

// Sum in a fixed order: lanes that are 8, 4, 2 and 1 apart.
ZIPML_INLINE float lane_sum(F16 v) {
  v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1);
  return v[0] + v[1];
}
ZIPML_INLINE double lane_sum(D8 v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
ZIPML_INLINE int32_t lane_sum(I16 v) {
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += v[i];
  return sum;
}

// Calls f(j, lanes) for j = 0, 16, ...: `lanes` of the 16 from j on exist. Arrays that f reads or
// writes are padded to whole vectors.
ZIPML_INLINE constexpr size_t padded(size_t size) { return (size + 15) / 16 * 16; }

}  // namespace ZIPML_ISA
}  // namespace zipml
