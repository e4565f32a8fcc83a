// What a mini-batch does to the model, once its residuals and code sums are known: a step along the
// gradient, which may be smoothed (momentum) or freed of variance (SVRG), then the penalties.
#pragma once

#include "residuals.hpp"

namespace zipml {
namespace ZIPML_ISA {

class Update {
 public:
  Update(const Affine& affine, const SgdOptions& options, const SgdState& state)
      : affine_(affine), o_(options), state_(state) {
    for (size_t j = 0; j < affine.columns; ++j) penalised_ |= options.l2[j] != 0 || (options.l1 && options.l1[j] != 0);
    plain_ = options.momentum == 0 && !state.anchor.model;
    gradient_.reset(affine.columns);
    no_l1_.reset(affine.columns);
  }

  // Takes a step of output k. `sums` are those of residual * code over the mini-batch's rows, of
  // which there are `rows`; `by_row` says whether rows have scales. With an anchor, residuals are
  // the differences to its own, and `anchor` is what its residuals added up.
  ZIPML_INLINE void step(size_t k, const OutputSums& s, const OutputSums& anchor, const float* sums, bool by_row,
                         double step, size_t rows) {
    const double scale = 1.0 / o_.batch_rows, full = scale * static_cast<double>(rows);
    const float ridge = static_cast<float>(kept(s) * s.curvature * scale);
    const float scaled = static_cast<float>(s.scaled * scale);
    // Rounded residuals where they stand for the rows too: then offset and centre cancel.
    const float centre = by_row ? static_cast<float>(s.rows * scale) : scaled;
    const float inverse = static_cast<float>(scale), eta = static_cast<float>(step);
    const float down = static_cast<float>(s.rows * scale);
    float* w = state_.model + k * affine_.columns;
    if (plain_) {
      for (size_t j = 0; j < affine_.columns; ++j) {
        const float g = affine_.slope[j] * (sums[j] * inverse) + affine_.offset[j] * scaled -
                        affine_.centre[j] * centre + ridge * o_.variance[j] * w[j];
        w[j] -= eta * g;
      }
      if (o_.fit_intercept) state_.intercept[k] -= eta * down;
    } else {
      for (size_t j = 0; j < affine_.columns; ++j) {
        gradient_[j] = affine_.slope[j] * (sums[j] * inverse) + affine_.offset[j] * scaled -
                       affine_.centre[j] * centre + ridge * o_.variance[j] * w[j];
      }
      slow_step(k, anchor, eta, down, static_cast<float>(full));
    }
    // A mini-batch that is not full counts for less, and its penalty with it.
    if (penalised_) shrink(w, static_cast<float>(step * full));
  }

  // Adds the gradient to the sums of output k, and leaves the model as it is.
  void add_gradient(size_t k, const OutputSums& s, const float* sums, bool by_row) {
    const double ridge = kept(s) * s.curvature, centre = by_row ? s.rows : s.scaled;
    const float* w = state_.model + k * affine_.columns;
    double* out = state_.gradient + k * affine_.columns;
    for (size_t j = 0; j < affine_.columns; ++j) {
      out[j] += static_cast<double>(affine_.slope[j]) * sums[j] + affine_.offset[j] * s.scaled -
                affine_.centre[j] * centre + ridge * o_.variance[j] * w[j];
    }
    state_.intercept_gradient[k] += s.rows;
  }

 private:
  // The split form has no second-order bias: what is not to be taken out is put in.
  double kept(const OutputSums& s) const { return o_.split ? 1.0 - s.correction : -s.correction; }

  __attribute__((noinline)) void slow_step(size_t k, const OutputSums& anchor, float eta, float down, float full) {
    float* w = state_.model + k * affine_.columns;
    if (state_.anchor.model) {
      const float* at = state_.anchor.model + k * affine_.columns;
      const float* mean = state_.anchor.gradient + k * affine_.columns;
      const float ridge = static_cast<float>(kept(anchor) * anchor.curvature / o_.batch_rows);
      for (size_t j = 0; j < affine_.columns; ++j) gradient_[j] += full * mean[j] - ridge * o_.variance[j] * at[j];
      down += full * state_.anchor.intercept_gradient[k];
    }
    if (o_.momentum != 0) {
      // A weighted mean of the gradients so far: the step keeps its meaning.
      const float keep = static_cast<float>(o_.momentum), add = static_cast<float>(1.0 - o_.momentum);
      float* v = state_.velocity + k * affine_.columns;
      for (size_t j = 0; j < affine_.columns; ++j) gradient_[j] = v[j] = keep * v[j] + add * gradient_[j];
      down = state_.intercept_velocity[k] = keep * state_.intercept_velocity[k] + add * down;
    }
    for (size_t j = 0; j < affine_.columns; ++j) w[j] -= eta * gradient_[j];
    if (o_.fit_intercept) state_.intercept[k] -= eta * down;
  }

  // The proximal step of both penalties: implicit, and so stable however strong they are.
  void shrink(float* w, float strength) const {
    const float* l1 = o_.l1 ? o_.l1 : no_l1_.data();
    for (size_t j = 0; j < affine_.columns; ++j) {
      const float size = (w[j] < 0.0f ? -w[j] : w[j]) - strength * l1[j];
      const float left = size < 0.0f ? 0.0f : size;
      w[j] = (w[j] < 0.0f ? 0.0f - left : left) / (1.0f + strength * o_.l2[j]);
    }
  }

  const Affine& affine_;
  const SgdOptions& o_;
  SgdState state_;
  bool penalised_ = false, plain_ = true;
  Buffer<float> gradient_, no_l1_;
};

}  // namespace ZIPML_ISA
}  // namespace zipml
