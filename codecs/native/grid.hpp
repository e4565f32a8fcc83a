// Uniform levels between two bounds, and where a value lies between them.
//
// Everything is computed in the array's own precision, without fused operations, so that the
// NumPy reference and every instruction set give the same bits. The two outer levels are the
// bounds themselves, and a value equal to a level is recognised exactly: it never moves.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "layout.hpp"

namespace zipml {

// Rounds to the nearest float16 (ties to even); for levels of float16 arrays, held in floats.
inline float round_to_half(float x) {
  const float a = std::fabs(x);
  if (a < 6.103515625e-05f) return std::copysign((a + 0.5f) - 0.5f, x);  // subnormal halves
  uint32_t u;
  std::memcpy(&u, &x, 4);
  u += 0x0FFFu + ((u >> 13) & 1u);
  u &= ~0x1FFFu;
  std::memcpy(&x, &u, 4);
  return x;
}

struct Keep {
  template <class T>
  static T level(T x) { return x; }
};
struct ToHalf {
  static float level(float x) { return round_to_half(x); }
};

template <class T>
struct Bounds;
template <>
struct Bounds<float> {
  static constexpr float huge = 0x1p126f, tiny = 0x1p-60f, up = 0x1p80f;
};
template <>
struct Bounds<double> {
  static constexpr double huge = 0x1p1022, tiny = 0x1p-510, up = 0x1p510;
};

// The grid of one column (or of one row, for row scales) with `intervals` = 2^bits - 1.
template <class T, class Round = Keep>
struct Grid {
  T lower, upper;
  T lo, hi, step, inverse;  // of the values times `factor`
  T factor;  // a power of two, not one only where the arithmetic would overflow or go denormal
  int32_t intervals;

  Grid(T lower_bound, T upper_bound, int32_t count)
      : lower(lower_bound), upper(upper_bound), intervals(count) {
    const T largest = std::fmax(std::fabs(lower), std::fabs(upper));
    factor = largest > Bounds<T>::huge ? T(0.25) : largest < Bounds<T>::tiny ? Bounds<T>::up : T(1);
    lo = lower * factor;
    hi = upper * factor;
    const double range = static_cast<double>(hi) - static_cast<double>(lo);
    step = static_cast<T>(range / count);
    inverse = range > 0 ? static_cast<T>(count / range) : T(0);
  }

  // Level of a code, times `factor`.
  ZIPML_INLINE T scaled_level(int32_t code) const {
    T level = lo + static_cast<T>(code) * step;
    if (factor != T(1)) level = (level / factor) * factor;  // a denormal has fewer digits
    level = Round::level(level);
    level = level < hi ? level : hi;
    level = code >= intervals ? hi : level;
    return code <= 0 ? lo : level;
  }

  ZIPML_INLINE T level(int32_t code) const {
    const T inner = code >= intervals ? upper : scaled_level(code) / factor;
    return code <= 0 ? lower : inner;
  }

  // Position of a value: base code << 16 | probability of rounding up in units of 2^-16. The
  // probability is the share of the interval between the two levels as they are, rounded to the
  // array's precision, and not of the nominal step: the expectation is then the value itself.
  ZIPML_INLINE int32_t position(T value) const {
    const T x = value * factor;
    // The comparisons are written so that a NaN, which callers refuse beforehand, is harmless.
    T nearest = std::rint((x - lo) * inverse);
    nearest = nearest >= T(0) ? nearest : T(0);
    nearest = nearest <= T(intervals) ? nearest : T(intervals);
    const int32_t code = static_cast<int32_t>(nearest);
    const T near = scaled_level(code);
    const bool above = x >= near;
    T share = (x - near) / (scaled_level(above ? code + 1 : code - 1) - near);
    share = share >= T(0) ? share : T(0);  // 0 / 0 where levels coincide
    share = share <= T(1) ? share : T(1);
    const int32_t units = static_cast<int32_t>(std::rint(share * T(65536)));
    const int32_t p = (code << 16) + (above ? units : -units);
    const int32_t top = intervals << 16;
    return p < 0 ? 0 : p > top ? top : p;
  }
};

}  // namespace zipml
