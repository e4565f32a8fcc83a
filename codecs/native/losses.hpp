// The losses of a row and their derivatives by the margin, sixteen rows at a time.
#pragma once

#include <initializer_list>

#include "core.hpp"
#include "lanes.hpp"

namespace zipml {
namespace ZIPML_ISA {

struct LossTerms {
  F16 value, first, second, third;
};

ZIPML_INLINE F16 polynomial(const F16& x, std::initializer_list<float> highest_first) {
  F16 p = splat(0.0f);
  for (const float c : highest_first) p = p * x + splat(c);
  return p;
}

// e^-a for a >= 0, to about 1e-7: a polynomial on [-ln2 / 2, ln2 / 2] and a power of two.
ZIPML_INLINE F16 exp_negative(const F16& a) {
  const F16 x = -smaller(a, splat(87.0f)), magic = splat(12582912.0f);  // 1.5 * 2^23
  const F16 n = (x * splat(1.44269504f) + magic) - magic;  // rounded to a whole number
  const F16 r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
  const F16 p = polynomial(r, {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f});
  return p * as_float((truncate(n) + splat(int32_t{127})) << 23);
}

// log(1 + e) for e in [0, 1]: twice the inverse hyperbolic tangent of e / (2 + e).
ZIPML_INLINE F16 log1p_unit(const F16& e) {
  const F16 s = e / (e + splat(2.0f));
  const F16 p = polynomial(s * s, {1.0f / 13, 1.0f / 11, 1.0f / 9, 1.0f / 7, 1.0f / 5, 1.0f / 3, 1.0f});
  return (s + s) * p;
}

// log x for finite x >= 1, to about 1e-7.
ZIPML_INLINE F16 log_positive(const F16& x) {
  const F16 one = splat(1.0f);
  const I16 bits = as_int(x);
  const F16 m = as_float((bits & splat(int32_t{0x007FFFFF})) + splat(int32_t{0x3F800000}));  // 1 .. 2
  const I16 high = splat(1.41421356f) < m;
  const F16 y = select(high, m * splat(0.5f), m);
  const F16 e = to_float((bits >> 23) - splat(int32_t{127})) + select(high, one, splat(0.0f));
  const F16 s = (y - one) / (y + one);
  const F16 p = polynomial(s * s, {1.0f / 9, 1.0f / 7, 1.0f / 5, 1.0f / 3, 1.0f});
  return (s + s) * p + e * splat(0.693147181f);
}

// One function a loss: a choice inside would leave the terms in memory. The derivatives of losses
// with a kink are those beside it: zero on the flat side.
template <Loss L>
ZIPML_INLINE LossTerms loss_terms(const F16& margin, const F16& target, const F16& delta);

template <>
ZIPML_INLINE LossTerms loss_terms<Loss::kSquared>(const F16& margin, const F16& target, const F16&) {
  const F16 residual = margin - target;
  return {splat(0.5f) * residual * residual, residual, splat(1.0f), splat(0.0f)};
}

template <>
ZIPML_INLINE LossTerms loss_terms<Loss::kHuber>(const F16& margin, const F16& target, const F16& delta) {
  const F16 zero = splat(0.0f), residual = margin - target, size = magnitude(residual);
  const I16 inside = size < delta;
  // residual - residual is NaN where the margin is not finite: a run that has left stays visible.
  const F16 slope = select(inside, residual, select(residual < zero, -delta, delta) + (residual - residual));
  const F16 value = select(inside, splat(0.5f) * residual * residual, delta * (size - splat(0.5f) * delta));
  return {value, slope, select(inside, splat(1.0f), zero), zero};
}

ZIPML_INLINE F16 class_sign(const F16& target) { return select(splat(0.5f) < target, splat(1.0f), splat(-1.0f)); }

template <>
ZIPML_INLINE LossTerms loss_terms<Loss::kLsSvm>(const F16& margin, const F16& target, const F16&) {
  const F16 residual = margin - class_sign(target);
  return {splat(0.5f) * residual * residual, residual, splat(1.0f), splat(0.0f)};
}

template <>
ZIPML_INLINE LossTerms loss_terms<Loss::kHinge>(const F16& margin, const F16& target, const F16&) {
  const F16 zero = splat(0.0f), one = splat(1.0f), sign = class_sign(target), gap = one - sign * margin;
  const I16 active = zero < gap;
  const F16 lost = gap - gap;
  return {select(active, gap, zero) + lost, select(active, -sign, zero) + lost, zero, zero};
}

template <>
ZIPML_INLINE LossTerms loss_terms<Loss::kSquaredHinge>(const F16& margin, const F16& target, const F16&) {
  const F16 zero = splat(0.0f), one = splat(1.0f), sign = class_sign(target), gap = one - sign * margin;
  const I16 active = zero < gap;
  const F16 short_by = select(active, gap, zero) + (gap - gap);
  return {short_by * short_by, -(sign * (short_by + short_by)), select(active, splat(2.0f), zero), zero};
}

template <>
ZIPML_INLINE LossTerms loss_terms<Loss::kLogistic>(const F16& margin, const F16& target, const F16&) {
  const F16 zero = splat(0.0f), one = splat(1.0f), sign = class_sign(target);
  const F16 x = sign * margin;
  const I16 negative = x < zero;
  // x - x is NaN for a margin that is not finite: a run that has left stays visible.
  const F16 e = exp_negative(magnitude(x)) + (x - x);
  const F16 wrong = select(negative, one, e) / (one + e);
  const F16 value = log1p_unit(e) + select(negative, -x, zero);
  const F16 second = wrong * (one - wrong);
  return {value, -(sign * wrong), second, -(sign * second * (one - (wrong + wrong)))};
}

}  // namespace ZIPML_ISA
}  // namespace zipml
