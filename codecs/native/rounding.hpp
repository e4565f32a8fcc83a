// Stochastic rounding of models and residuals to signed digits of eight bits.
#pragma once

#include "dots.hpp"
#include "lanes.hpp"
#include "philox.hpp"

namespace zipml {
namespace ZIPML_ISA {

// A number is one digit, or the sum of two: digit 0 + radix * digit 1, radix = 2 limit + 1. So the
// kernels for int8 serve int16 as well, and its range is what the digits' limit leaves.
struct DigitForm {
  int digits, limit;

  static DigitForm of(Arithmetic arithmetic, int widest_plane) {
    return {arithmetic == Arithmetic::kInt16 ? 2 : 1, digit_limit(widest_plane)};
  }
  int radix() const { return 2 * limit + 1; }
  int largest() const { return digits == 2 ? limit * radix() + limit : limit; }
};

// Largest magnitude; NaN or infinity if there is one. Bits of magnitudes are ordered like the
// magnitudes, with NaN on top. `values` are padded with zeros to whole vectors.
ZIPML_INLINE float largest_magnitude(const float* values, size_t size) {
  U16 most{};
  for (size_t j = 0; j < size; j += 16) {
    const U16 bits = reinterpret_cast<U16>(load<F16>(values + j)) & 0x7FFFFFFFu;
    most = bits > most ? bits : most;
  }
  uint32_t top = 0;
  for (int i = 0; i < 16; ++i) top = greatest(top, most[i]);
  float out;
  std::memcpy(&out, &top, 4);
  return out;
}

// Rounds 64 values times `inverse` up or down, up where the draw is below their fraction: unbiased
// to the precision of the float. Digits go to digits[0] and, if there are two, digits[1].
ZIPML_INLINE void round_block(const float* values, float inverse, DigitForm form, const uint16_t* draws,
                              int8_t* const* digits) {
  const F16 top = splat(static_cast<float>(form.largest()));
  for (size_t i = 0; i < 64; i += 16) {
    F16 x = load<F16>(values + i) * inverse;
    x = smaller(larger(x, -top), top);  // the product may have rounded beyond the largest
    const I16 low = floor_int(x);
    const F16 fraction = (x - to_float(low)) * 65536.0f;
    const F16 draw = to_float(__builtin_convertvector(load<H16>(draws + i), I16));
    const I16 number = low - (draw < fraction);
    if (form.digits == 1) {
      store(digits[0] + i, __builtin_convertvector(number, S16));
    } else {
      const float radix = static_cast<float>(form.radix());
      const I16 high = floor_int((to_float(number) + (static_cast<float>(form.limit) + 0.5f)) / radix);
      store(digits[0] + i, __builtin_convertvector(number - high * form.radix(), S16));
      store(digits[1] + i, __builtin_convertvector(high, S16));
    }
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
