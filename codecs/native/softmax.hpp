// The softmax loss of a row's margins taken together, log of the sum of e^m less the margin of the
// row's class, and what the rounding of the codes does to it.
//
// With p the probabilities and S the covariance that rounding gives the margins, S_kl = w_k' V w_l,
// the expected gradient of output k is off by V sum_l H_kl w_l, H = diag(p) - p p', and its residual
// by half of sum_lm S_lm d2p_k / dm_l dm_m = p_k (S_kk - 2 (S p)_k + 2 p' S p - sum_l p_l S_ll).
#pragma once

#include "losses.hpp"
#include "products.hpp"

namespace zipml {
namespace ZIPML_ISA {

// Functions of their own: inlined, they would leave the compiler no room for the hot ones.
#define ZIPML_APART __attribute__((noinline))

// Variance of the margin up to which the logistic correction is applied in full: above it models ran
// away on heavy-tailed columns at 4, at 1 the gain was smaller (docs/estimators.md).
constexpr double kSeriesLimit = 2.0;

// What a mini-batch adds up for one output.
struct OutputSums {
  double loss, curvature;
  double rows, scaled;  // of the residuals, as they are and as rounded
  double rounding;    // variance of the margins that rounding causes: sum of v w^2
  double correction;  // part of the rounding bias to take out
};

class Softmax {
 public:
  void reset(size_t columns, size_t outputs, const SgdOptions& options, bool noisy) {
    columns_ = columns;
    outputs_ = outputs;
    o_ = &options;
    noisy_ = noisy;
    mean_.reset(outputs * kTileRows);
    if (options.split) {
      first_.reset(outputs * kTileRows);
      second_.reset(outputs * kTileRows);
    }
    if (!noisy) return;
    noise_.reset(outputs * outputs);
    noise_float_.reset(outputs * outputs);
    pairs_.reset(outputs * outputs);
    bend_.reset(outputs * 16);
  }

  // Where the margins of the second samples go.
  float* second(size_t k) { return second_.data() + k * kTileRows; }

  // The covariance of the margins, and the part of the correction that its series allows.
  ZIPML_APART void begin(const float* model, OutputSums* sums) {
    pairs_.clear();
    for (size_t k = 0; k < outputs_; ++k) {
      for (size_t l = 0; l <= k; ++l) {
        const double s = covariance(model + k * columns_, model + l * columns_);
        noise_[k * outputs_ + l] = noise_[l * outputs_ + k] = s;
        noise_float_[k * outputs_ + l] = noise_float_[l * outputs_ + k] = static_cast<float>(s);
      }
    }
    double most = 0;  // of the difference of two margins, which is the margin of two classes
    for (size_t k = 0; k < outputs_; ++k) {
      for (size_t l = 0; l < k; ++l) {
        most = greatest(most, noise_[k * outputs_ + k] + noise_[l * outputs_ + l] - 2 * noise_[k * outputs_ + l]);
      }
    }
    part_ = most > kSeriesLimit ? o_->correction * kSeriesLimit / most : o_->correction;
    for (size_t k = 0; k < outputs_; ++k) sums[k].correction = part_;
  }

  // Margins of a tile to residuals: output k's at m + k * stride, in the split form those of the first
  // samples half a stride behind and those of the second in `second`.
  ZIPML_APART void residuals(float* m, size_t stride, const float code[64], const float counts[64], OutputSums* sums) {
    alignas(64) float value[64];
    probabilities(m, stride, code, mean_.data(), value);
    sums[0].loss += weighted(value, counts);
    if (noisy_) add_pairs(counts);
    if (!o_->split) {
      shift(mean_.data(), 0.5 * part_);
    } else {
      probabilities(m + stride / 2, stride, code, first_.data(), value);
      probabilities(second_.data(), kTileRows, code, second_.data(), value);
      // A single sample has twice the variance of the mean of two.
      shift(first_.data(), part_);
      shift(second_.data(), part_);
    }
    for (size_t k = 0; k < outputs_; ++k) {
      const F16 own = splat(static_cast<float>(k)), one = splat(1.0f), zero = splat(0.0f);
      F16 sum = zero;
      for (size_t r = 0; r < kTileRows; r += 16) {
        const F16 here = load<F16>(counts + r), c = load<F16>(code + r);
        const F16 target = select(c < own, zero, select(own < c, zero, one));
        const auto residual = [&](const Buffer<float>& p) __attribute__((always_inline)) {
          return (load<F16>(p.data() + k * kTileRows + r) - target) * here;
        };
        float* at = m + k * stride + r;
        if (!o_->split) {
          const F16 only = residual(mean_);
          sum += only;
          store(at, only);
        } else {
          const F16 r1 = residual(first_), r2 = residual(second_);
          sum += splat(0.5f) * (r1 + r2);
          store(at, r1);
          store(at + stride / 2, r2 - r1);
        }
      }
      sums[k].rows += lane_sum(sum);
    }
  }

  // Takes the bias of the gradients out of the sums over codes, of which slope times is the gradient,
  // and that of the loss out of the loss. Columns without a slope have no variance.
  ZIPML_APART void end(const float* model, const float* slope, OutputSums* sums, float sign, float* code_sums) const {
    // The split form has no second-order bias: what is not to be taken out is put in.
    const double kept = sign * (o_->split ? 1.0 - part_ : -part_);
    for (size_t k = 0; k < outputs_; ++k) {
      double own = 0, coupled = 0;
      for (size_t l = 0; l < outputs_; ++l) {
        if (l != k) own += pair(k, l);
      }
      for (size_t l = 0; l < outputs_; ++l) {
        const double h = l == k ? own : -pair(k, l);
        const float factor = static_cast<float>(kept * h);
        const float* w = model + l * columns_;
        float* out = code_sums + k * padded(columns_);
        for (size_t j = 0; factor != 0 && j < columns_; ++j) {
          out[j] += slope[j] != 0 ? factor * w[j] * (o_->variance[j] / slope[j]) : 0.0f;
        }
        coupled += h * noise_[k * outputs_ + l];
      }
      // E loss(q.w) - loss(a.w) = 1/2 sum over k and l of H_kl S_kl
      sums[0].loss -= 0.5 * coupled;
      sums[k].rounding = 0;
    }
  }

 private:
  double covariance(const float* a, const float* b) const {
    DoubleLanes sum{};
    size_t j = 0;
    const auto term = [&](size_t at) { return static_cast<double>(o_->variance[at]) * a[at] * b[at]; };
    for (; j + 8 <= columns_; j += 8) {
      for (size_t l = 0; l < 8; ++l) sum.lane[l] += term(j + l);
    }
    double all = lane_sum(sum);
    for (; j < columns_; ++j) all += term(j);
    return all;
  }

  // Sum over rows of p_k p_l for two outputs: minus their curvature.
  double pair(size_t k, size_t l) const { return pairs_[greatest(k, l) * outputs_ + least(k, l)]; }

  static ZIPML_INLINE float weighted(const float* values, const float* counts) {
    F16 sum = splat(0.0f);
    for (size_t r = 0; r < kTileRows; r += 16) sum += load<F16>(values + r) * load<F16>(counts + r);
    return lane_sum(sum);
  }

  ZIPML_APART void add_pairs(const float* counts) {
    for (size_t k = 0; k < outputs_; ++k) {
      F16 weighed[4];
      for (size_t b = 0; b < 4; ++b) {
        weighed[b] = load<F16>(mean_.data() + k * kTileRows + 16 * b) * load<F16>(counts + 16 * b);
      }
      for (size_t l = 0; l < k; ++l) {
        const float* p = mean_.data() + l * kTileRows;
        F16 sum = weighed[0] * load<F16>(p);
#pragma GCC unroll 3
        for (size_t b = 1; b < 4; ++b) sum += weighed[b] * load<F16>(p + 16 * b);
        pairs_[k * outputs_ + l] += lane_sum(sum);
      }
    }
  }

  // Probabilities of 64 rows, and the loss of each; `out` may be where the margins are.
  ZIPML_APART void probabilities(const float* m, size_t stride, const float code[64], float* out, float value[64]) const {
    for (size_t r = 0; r < kTileRows; r += 16) {
      F16 top = load<F16>(m + r);
      for (size_t k = 1; k < outputs_; ++k) top = larger(top, load<F16>(m + k * stride + r));
      F16 sum = splat(0.0f), own = splat(0.0f);
      const F16 c = load<F16>(code + r);
      for (size_t k = 0; k < outputs_; ++k) {
        const F16 margin = load<F16>(m + k * stride + r), number = splat(static_cast<float>(k));
        // NaN for a margin that is not finite: a run that has left stays visible.
        const F16 e = exp_negative(magnitude(top - margin)) + (margin - margin);
        own = select(c < number, own, margin);
        sum += e;
        store(out + k * kTileRows + r, e);
      }
      for (size_t k = 0; k < outputs_; ++k) {
        float* at = out + k * kTileRows + r;
        store(at, load<F16>(at) / sum);
      }
      store(value + r, log_positive(sum) + (sum - sum) + (top - own));
    }
  }

  // Takes out of probabilities, in place, this part of the sums above.
  ZIPML_APART void shift(float* p, double part) {
    if (!noisy_ || part == 0) return;
    const F16 factor = splat(static_cast<float>(part));
    for (size_t r = 0; r < kTileRows; r += 16) {
      F16 all = splat(0.0f);  // 2 p' S p - sum of p_l S_ll
      for (size_t k = 0; k < outputs_; ++k) {
        F16 mixed = splat(0.0f);  // (S p)_k
        for (size_t l = 0; l < outputs_; ++l) {
          mixed += splat(noise_float_[k * outputs_ + l]) * load<F16>(p + l * kTileRows + r);
        }
        const F16 own = splat(noise_float_[k * outputs_ + k]);
        all += load<F16>(p + k * kTileRows + r) * (mixed + mixed - own);
        store(bend_.data() + k * 16, own - (mixed + mixed));
      }
      for (size_t k = 0; k < outputs_; ++k) {
        float* at = p + k * kTileRows + r;
        store(at, load<F16>(at) * (splat(1.0f) - factor * (load<F16>(bend_.data() + k * 16) + all)));
      }
    }
  }

  size_t columns_ = 0, outputs_ = 0;
  const SgdOptions* o_ = nullptr;
  bool noisy_ = false;
  double part_ = 0;
  Buffer<float> mean_, first_, second_;  // outputs x 64: probabilities
  Buffer<double> noise_, pairs_;         // outputs x outputs
  Buffer<float> noise_float_, bend_;
};

}  // namespace ZIPML_ISA
}  // namespace zipml
