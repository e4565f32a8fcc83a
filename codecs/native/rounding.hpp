// Stochastic rounding of models and residuals to signed digits of eight bits.
#pragma once

#include "dots.hpp"
#include "draws.hpp"
#include "lanes.hpp"

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
  I16 most = splat(int32_t{0});
  for (size_t j = 0; j < size; j += 16) {
    most = larger(most, as_int(magnitude(load<F16>(values + j))));
  }
  int32_t all[16], top = 0;
  store(all, most);
  for (int i = 0; i < 16; ++i) top = greatest(top, all[i]);
  float out;
  std::memcpy(&out, &top, 4);
  return out;
}

// Rounds 64 values to whole multiples of `step`, up where the draw of 16 bits is below their fraction:
// unbiased to 2^-16 of a step. Digits go to digits[0] and, if there are two, digits[1]; the
// values become what the digits stand for.
ZIPML_INLINE void round_block(float* values, float step, DigitForm form, const uint16_t* draws,
                              int8_t* const* digits) {
  if (!(step < 3e38f)) {  // of values that are not finite: so shall be what comes of them
    for (int d = 0; d < form.digits; ++d) std::memset(digits[d], 0, 64);
    for (size_t i = 0; i < 64; ++i) values[i] = __builtin_nanf("");
    return;
  }
  const float inverse = step > 0 ? 1.0f / step : 0.0f;
  const F16 top = splat(static_cast<float>(form.largest())), unit = splat(65536.0f), one = splat(1.0f);
  const F16 by = splat(inverse), radix = splat(static_cast<float>(form.radix()));
  const F16 half = splat(static_cast<float>(form.limit) + 0.5f);
#pragma GCC unroll 4
  for (size_t i = 0; i < 64; i += 16) {
    F16 x = load<F16>(values + i) * by;
    x = smaller(larger(x, -top), top);  // the product may have rounded beyond the largest
    const F16 low = floor(x);
    const F16 up = select(to_float(widen_halves(draws + i)) < (x - low) * unit, low + one, low);
    const I16 number = truncate(up);
    store(values + i, up * splat(step));
    if (form.digits == 1) {
      store_bytes(digits[0] + i, number);
    } else {
      const I16 high = truncate(floor((up + half) / radix));
      store_bytes(digits[0] + i, number - high * splat(form.radix()));
      store_bytes(digits[1] + i, high);
    }
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
