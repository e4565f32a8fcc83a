// The losses of a row and their derivatives by the margin, sixteen rows at a time.
#pragma once

#include "core.hpp"
#include "lanes.hpp"

namespace zipml {
namespace ZIPML_ISA {

struct LossTerms {
  F16 value, first, second, third;
};

// e^-a for a >= 0, to about 1e-7: a polynomial on [-ln2 / 2, ln2 / 2] and a power of two.
ZIPML_INLINE F16 exp_negative(F16 a) {
  const F16 x = -smaller(a, splat(87.0f));
  const F16 n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // rounded to a whole number
  const F16 r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  F16 p = splat(1.0f / 5040.0f);
  p = p * r + (1.0f / 720.0f);
  p = p * r + (1.0f / 120.0f);
  p = p * r + (1.0f / 24.0f);
  p = p * r + (1.0f / 6.0f);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * reinterpret_cast<F16>((truncate(n) + 127) << 23);
}

// log(1 + e) for e in [0, 1]: twice the inverse hyperbolic tangent of e / (2 + e).
ZIPML_INLINE F16 log1p_unit(F16 e) {
  const F16 s = e / (e + 2.0f), q = s * s;
  F16 p = splat(1.0f / 13.0f);
  p = p * q + (1.0f / 11.0f);
  p = p * q + (1.0f / 9.0f);
  p = p * q + (1.0f / 7.0f);
  p = p * q + (1.0f / 5.0f);
  p = p * q + (1.0f / 3.0f);
  p = p * q + 1.0f;
  return 2.0f * s * p;
}

ZIPML_INLINE LossTerms loss_terms(Loss loss, F16 margin, F16 target) {
  const F16 zero{}, one = splat(1.0f);
  if (loss == Loss::kSquared) {
    const F16 residual = margin - target;
    return {0.5f * residual * residual, residual, one, zero};
  }
  const F16 sign = target > 0.5f ? one : -one;
  const F16 x = sign * margin;
  // NaN passes through both branches of every choice here: a run that has left stays visible.
  const F16 e = exp_negative(magnitude(x)) + (x - x);
  const F16 wrong = (x >= 0.0f ? e : one) / (one + e);
  const F16 value = log1p_unit(e) + (x < 0.0f ? -x : zero);
  const F16 second = wrong * (one - wrong);
  return {value, -sign * wrong, second, -sign * second * (one - 2.0f * wrong)};
}

}  // namespace ZIPML_ISA
}  // namespace zipml
