// Values in the type that arithmetic is done in: bytes and halves as floats.
#pragma once

#include "core.hpp"
#include "isa.hpp"
#include "layout.hpp"

namespace zipml {
namespace ZIPML_ISA {

// The float of a binary16 number, without a branch.
ZIPML_INLINE float half_to_float(uint16_t half) {
  const uint32_t magnitude = (half & 0x7FFFu) << 13, sign = (half & 0x8000u) << 16;
  // The exponent is moved by a product, which is exact and makes subnormal halves normal floats.
  float x, special;
  std::memcpy(&x, &magnitude, 4);
  x *= 0x1p112f;
  const uint32_t infinite = magnitude | 0x7F800000u;  // infinity, or NaN
  std::memcpy(&special, &infinite, 4);
  x = (half & 0x7C00u) == 0x7C00u ? special : x;
  return sign ? -x : x;
}

ZIPML_INLINE float as_working(float x) { return x; }
ZIPML_INLINE double as_working(double x) { return x; }
ZIPML_INLINE float as_working(uint8_t x) { return static_cast<float>(x); }
ZIPML_INLINE float as_working(RawHalf x) { return half_to_float(x.bits); }

template <class In>
struct WorkingOf {
  using type = decltype(as_working(In()));
};
template <class In>
using Working = typename WorkingOf<In>::type;

}  // namespace ZIPML_ISA
}  // namespace zipml
