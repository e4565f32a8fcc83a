// Mini-batches whose residuals are a polynomial of the margin, evaluated with independent samples.
//
// The mean of the products of j different samples' margins is unbiased for the j-th power of the row's
// margin. A sample takes the polynomial of the others' margins, so that the product of the two is
// unbiased as well (ZipML, section 4). The losses are the logistic one, whose derivative bends about the
// margin 0, and the hinge, whose slope jumps at the margin 1.
#pragma once

#include "residuals.hpp"
#include "samples.hpp"
#include "update.hpp"

namespace zipml {
namespace ZIPML_ISA {

class PolynomialBatches {
 public:
  PolynomialBatches(const ChunkView* chunks, const Affine& affine, const SgdOptions& options, SgdState state)
      : affine_(affine), o_(options), state_(state), samples_(static_cast<size_t>(options.polynomial.samples)),
        loader_(chunks, affine, options.polynomial.samples, options.seed, options.draw),
        products_(affine, Arithmetic::kFloat, state.outputs, 0, 0),
        residuals_(affine, options, products_, state.outputs), update_(affine, options, state) {
    sums_.reset(state.outputs);
    margin_.reset(samples_ * state.outputs * kTileRows);
    code_sum_.reset(state.outputs * padded(affine.columns));
  }

  // Runs one mini-batch of tiles and returns its rows.
  size_t run(const TileRef* tiles, size_t count, const TileRef*, double step, double* loss_sum) {
    residuals_.begin(state_.model, sums_.data());
    products_.set_model(state_.model, state_.intercept, 0);
    code_sum_.clear();
    size_t rows = 0;
    for (size_t t = 0; t < count; ++t) {
      loader_.view(tiles[t], views_);
      rows += views_[0].rows;
      see();
    }
    for (size_t k = 0; k < state_.outputs; ++k) {
      OutputSums& s = sums_[k];
      *loss_sum += s.loss - 0.5 * s.curvature * s.rounding;
      const float* sums = code_sum_.data() + k * padded(affine_.columns);
      const bool by_row = views_[0].chunk->row_scale != nullptr;
      if (state_.gradient) {
        update_.add_gradient(k, s, sums, by_row);
      } else {
        update_.step(k, s, s, sums, by_row, step, rows);
      }
    }
    return rows;
  }

 private:
  size_t stride() const { return state_.outputs * kTileRows; }
  // Margins of a sample, then its residuals: output k's are 64 k behind.
  float* vector(size_t sample) { return margin_.data() + sample * stride(); }

  // Takes one tile.
  void see() {
    for (size_t i = 0; i < samples_; ++i) {
      products_.code_margins(views_[i].planes, views_[i].count, vector(i), kTileRows);
    }
    for (size_t k = 0; k < state_.outputs; ++k) {
      if (o_.loss == Loss::kHinge) {
        samples_ == 8 ? residuals<Loss::kHinge, 8>(k) : residuals<Loss::kHinge, 4>(k);
      } else {
        samples_ == 8 ? residuals<Loss::kLogistic, 8>(k) : residuals<Loss::kLogistic, 4>(k);
      }
    }
    const float weight = loader_.unit() / static_cast<float>(samples_);
    for (size_t i = 0; i < samples_; ++i) {
      products_.add_code_gradient(views_ + i, 1, false, vector(i), kTileRows, weight, nullptr, code_sum_.data(),
                                  padded(affine_.columns));
    }
  }

  template <Loss L, int K>
  ZIPML_APART void residuals(size_t k) {
    alignas(64) float target[64], counts[64];
    const F16 unit = splat(loader_.unit());
    for (int i = 0; i < K; ++i) {
      float* m = margins(i, k);
      for (size_t r = 0; r < kTileRows; r += 16) store(m + r, load<F16>(m + r) * unit);
      products_.finish_margins(views_[0], k, m);
    }
    residuals_.targets(views_[0], k, target, counts);
    RowSums rows;
    for (size_t r = 0; r < kTileRows; r += 16) {
      rows_of<L, K>(k, r, load<F16>(target + r), load<F16>(counts + r), rows);
    }
    F16 scaled = rows.residual;
    if (views_[0].chunk->row_scale) {
      scaled = splat(0.0f);
      for (int i = 0; i < K; ++i) {
        residuals_.scale_rows(views_[0], margins(i, k));
        for (size_t r = 0; r < kTileRows; r += 16) scaled += load<F16>(margins(i, k) + r);
      }
    }
    sums_[k].loss += lane_sum(rows.loss);
    sums_[k].curvature += lane_sum(rows.curvature);
    sums_[k].rows += lane_sum(rows.residual) / K;
    sums_[k].scaled += lane_sum(scaled) / K;
  }

  // Sixteen rows: margins become residuals.
  template <Loss L, int K>
  ZIPML_INLINE void rows_of(size_t k, size_t r, const F16& target, const F16& here, RowSums& rows) {
    const MarginPolynomial& p = o_.polynomial;
    const F16 zero = splat(0.0f), one = splat(1.0f), sign = class_sign(target);
    const F16 turn = sign * splat(p.inverse_range), bound = splat(p.bound);
    const F16 shift = splat(p.centre * p.inverse_range);
    F16 symmetric[K], total = zero, squares = zero;  // of all samples, but for their product
    symmetric[0] = one;
#pragma GCC unroll 8
    for (int j = 1; j < K; ++j) symmetric[j] = zero;
#pragma GCC unroll 8
    for (int i = 0; i < K; ++i) {
      const F16 m = load<F16>(margins(i, k) + r), t = m * turn - shift;
      total += m;
      squares += m * m;
#pragma GCC unroll 8
      for (int j = least(i + 1, K - 1); j > 0; --j) symmetric[j] += t * symmetric[j - 1];
    }
    if constexpr (L != Loss::kHinge) {
      const LossTerms at = loss_terms<L>(total * splat(1.0f / K), target, splat(o_.huber_delta));
      rows.loss += at.value * here;
      rows.curvature += at.second * here;
    }
#pragma GCC unroll 1
    for (int i = 0; i < K; ++i) {
      float* at_sample = margins(i, k) + r;
      const F16 m = load<F16>(at_sample), t = m * turn - shift;
      F16 others = one, value = splat(p.weights[0]);  // symmetric polynomials of the other samples
#pragma GCC unroll 8
      for (int j = 1; j < K; ++j) {
        others = symmetric[j] - t * others;
        value += splat(p.weights[j]) * others;
      }
      const F16 rest = (total - m) * splat(1.0f / (K - 1));
      const F16 plain = derivative<L, K>(rest, (squares - m * m) - (total - m) * rest, target);
      // By the others too: a choice that this sample had a part in would be correlated with it.
      const I16 good = (magnitude(rest * turn - shift) < one) & (magnitude(value) < bound);
      const F16 residual = select(good, sign * value, plain) * here;
      rows.residual += residual;
      // The hinge is its slope times u - 1, and a sample's own margin has no part in its residual.
      if constexpr (L == Loss::kHinge) rows.loss += residual * (m - sign) * splat(1.0f / K);
      store(at_sample, residual);
    }
  }

  // The derivative at the mean margin of the others, less what the noise of that adds to it: half of the
  // third derivative times the variance, which is the one that the others show. The hinge has no third.
  template <Loss L, int K>
  ZIPML_INLINE F16 derivative(const F16& rest, const F16& spread, const F16& target) const {
    const LossTerms there = loss_terms<L>(rest, target, splat(o_.huber_delta));
    if constexpr (L == Loss::kHinge) return there.first;
    const F16 noise = smaller(spread * splat(1.0f / ((K - 1) * (K - 2))), splat(static_cast<float>(kSeriesLimit)));
    return there.first - splat(0.5f) * noise * there.third;
  }

  float* margins(int sample, size_t k) { return vector(static_cast<size_t>(sample)) + k * kTileRows; }

  Affine affine_;
  const SgdOptions& o_;
  SgdState state_;
  size_t samples_;
  SampleLoader loader_;
  Products products_;
  Residuals residuals_;
  Update update_;
  TileView views_[kMostSamples];
  Buffer<OutputSums> sums_;
  Buffer<float> margin_;    // samples x outputs x 64
  Buffer<float> code_sum_;  // outputs x padded columns
};

}  // namespace ZIPML_ISA
}  // namespace zipml
