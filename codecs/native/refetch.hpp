// Rows of the hinge loss that few bits cannot decide are read again at all bits (ZipML, section 4.2).
//
// The base of a code says between which two levels a value lies. The margin at the middles of all these
// intervals is off by at most half of the sum of |w| times their lengths, whatever the values are and
// however they were rounded: where the loss is further from its kink than that, its slope is known, and is
// what reading the row at all bits would give. The other rows of the group are looked at again in the planes
// of all bits. Sample bits have no part in what few bits decide, so that the gradient of such a row, its
// slope times its sample, is right on average over their draws.
#pragma once

#include "residuals.hpp"

namespace zipml {
namespace ZIPML_ISA {

class Refetch {
 public:
  Refetch(const Affine& affine, const SgdOptions& options, size_t outputs)
      : affine_(affine), finer_(*options.finer), outputs_(outputs),
        again_(finer_.affine, options.arithmetic, outputs, options.seed, options.draw),
        loader_(finer_.chunks, finer_.affine, kGroupTiles, false, options.seed, options.draw),
        weight_(1.0f / static_cast<float>(1 << finer_.more)) {
    middle_.reset(outputs);
    reach_.reset(outputs);
    open_.reset(outputs * kStride);
    margin_.reset(outputs * kStride);
  }

  // Takes the model of a mini-batch, as `products` has.
  void look(const Products& products, const float* model, const float* intercept, uint64_t batch) {
    again_.set_model(model, intercept, batch);
    for (size_t k = 0; k < outputs_; ++k) {
      double sum, size;
      products.factor_sums(k, &sum, &size);
      const double half = 0.5 * affine_.woven, bits = affine_.stored_bits - affine_.woven;
      middle_[k] = static_cast<float>(half * sum);
      // What single precision adds, here and when the row is looked at again: a product and a sum for each
      // column and a few more, each off by at most 2^-24 of no more than what is added up in all.
      const double all = 2 * half * size * static_cast<double>(1 << static_cast<int>(bits)) +
                         magnitude_of(products.linear(k)) + magnitude_of(products.constant(k)) + 1;
      const double error = (static_cast<double>(affine_.columns) + 16) * 0x1p-23 * all;
      reach_[k] = static_cast<float>((half * size + error) * (1 + 0x1p-20));
    }
  }

  // Turns sums over bases into residuals, in place, as Residuals does: of the rows that are decided.
  // The others have residuals of their own, which add_gradient takes. What sums call loss is how often rows
  // counted that are short of their margin.
  void of_group(const Products& products, const Residuals& residuals, const TileView* tiles, const TileRef* refs,
                size_t count, float* margins, size_t stride, OutputSums* sums) {
    taken_ = 0;
    for (size_t i = 0; i < count; ++i) {
      F16 any[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
      for (size_t k = 0; k < outputs_; ++k) {
        float* m = margins + k * stride + i * kTileRows;
        alignas(64) float target[64], counts[64];
        // A code is a base for each sample.
        const F16 each = splat(static_cast<float>(affine_.woven));
        for (size_t r = 0; r < kTileRows; r += 16) store(m + r, each * load<F16>(m + r));
        products.finish_margins(tiles[i], k, m);
        residuals.targets(tiles[i], k, target, counts);
        decide(k, target, counts, m, open(k, taken_), sums[k], any);
      }
      F16 found = splat(0.0f);
      for (int b = 0; b < 4; ++b) found += any[b];
      const float rows = lane_sum(found);
      if (rows == 0) continue;
      *finer_.rows += static_cast<uint64_t>(rows);
      *finer_.slots += slots_in_tile(tiles[i].rows);
      refs_[taken_++] = refs[i];
    }
    if (taken_) look_again(sums);
  }

  // Adds what the rows that were read again give to the sums over codes, in codes of few bits.
  void add_gradient(float* code_sums, size_t stride, OutputSums* sums) {
    if (!taken_) return;
    for (size_t k = 0; k < outputs_; ++k) {
      float* r = open(k, 0);
      again_.round_residuals(views_, taken_, k, static_cast<uint32_t>(k), r);
      F16 sum = splat(0.0f);
      for (size_t i = 0; i < taken_ * kTileRows; i += 16) sum += load<F16>(r + i);
      sums[k].scaled += lane_sum(sum);
    }
    again_.add_code_gradient(views_, taken_, false, open_.data(), kStride, weight_, nullptr, code_sums, stride);
  }

  // The loss of a mini-batch: 1 - s m for every row that is short of its margin, whose sum is the model times
  // the gradient and so unbiased as that is.
  double lost(const float* model, float intercept, const OutputSums& s, const float* code_sums) const {
    DoubleLanes sum{};
    const auto term = [&](size_t j) {
      const double value = static_cast<double>(affine_.slope[j]) * code_sums[j] +
                           (static_cast<double>(affine_.offset[j]) - affine_.centre[j]) * s.scaled;
      return value * model[j];
    };
    size_t j = 0;
    for (; j + 8 <= affine_.columns; j += 8) {
      for (size_t l = 0; l < 8; ++l) sum.lane[l] += term(j + l);
    }
    double all = lane_sum(sum);
    for (; j < affine_.columns; ++j) all += term(j);
    return s.loss + intercept * s.rows + all;
  }

 private:
  static constexpr size_t kStride = kGroupTiles * kTileRows;

  static double magnitude_of(double x) { return x < 0 ? -x : x; }

  // Of the rows that are read again: first how often they count, with the sign of their residual, then that.
  float* open(size_t k, size_t tile) { return open_.data() + k * kStride + tile * kTileRows; }

  ZIPML_INLINE void decide(size_t k, const float* target, const float* counts, float* m, float* left, OutputSums& s,
                           F16 any[4]) const {
    const F16 zero = splat(0.0f), one = splat(1.0f), reach = splat(reach_[k]), middle = splat(middle_[k]);
    F16 active = zero, residuals = zero;
    for (int b = 0; b < 4; ++b) {
      const size_t r = 16 * static_cast<size_t>(b);
      const F16 sign = class_sign(load<F16>(target + r)), here = load<F16>(counts + r);
      const F16 gap = one - sign * (load<F16>(m + r) + middle);
      // A margin that is not a number decides nothing.
      const I16 decided = reach < magnitude(gap);
      const F16 weight = select(zero < gap, select(decided, here, zero), zero);
      const F16 residual = -(sign * weight), undecided = select(decided, zero, here);
      active += weight;
      residuals += residual;
      any[b] = select(zero < undecided, one, any[b]);
      store(m + r, residual);
      store(left + r, -(sign * undecided));
    }
    s.loss += lane_sum(active);
    s.rows += lane_sum(residuals);
  }

  // Fetches what is missing of the tiles that were taken, and decides their rows by it.
  ZIPML_APART void look_again(OutputSums* sums) {
    TileRef missing[kGroupTiles];
    size_t count = 0;
    for (size_t i = 0; i < taken_; ++i) {
      if (!finer_.present[refs_[i].chunk][refs_[i].tile]) missing[count++] = refs_[i];
    }
    if (count) finer_.fetch(finer_.context, missing, count);
    for (size_t i = 0; i < taken_; ++i) {
      loader_.view(i, refs_[i], views_[i]);
      again_.code_margins(views_[i].planes, views_[i].count, margin_.data() + i * kTileRows, kStride);
    }
    for (size_t k = 0; k < outputs_; ++k) {
      F16 active = splat(0.0f), residuals = splat(0.0f);
      for (size_t i = 0; i < taken_; ++i) {
        float *m = margin_.data() + k * kStride + i * kTileRows, *left = open(k, i);
        again_.finish_margins(views_[i], k, m);
        for (size_t r = 0; r < kTileRows; r += 16) {
          const F16 zero = splat(0.0f), one = splat(1.0f), undecided = load<F16>(left + r);
          const F16 sign = select(undecided < zero, one, -one);
          const F16 gap = one - sign * load<F16>(m + r);
          // gap - gap is NaN where the margin is: a run that has left stays visible.
          const F16 residual = select(zero < gap, undecided, zero) + (gap - gap);
          active += magnitude(residual);
          residuals += residual;
          store(left + r, residual);
        }
      }
      sums[k].loss += lane_sum(active);
      sums[k].rows += lane_sum(residuals);
    }
  }

  const Affine& affine_;
  const Finer& finer_;
  size_t outputs_;
  Products again_;
  Loader loader_;
  float weight_;  // of a code with all bits beside one of few
  Buffer<float> middle_, reach_;  // of each output
  Buffer<float> open_, margin_;   // outputs x group x 64
  TileView views_[kGroupTiles];
  TileRef refs_[kGroupTiles];
  size_t taken_ = 0;  // tiles of the group that are read again
};

}  // namespace ZIPML_ISA
}  // namespace zipml
