// From margins to residuals: what the rows of a mini-batch give to its loss and its gradient.
#pragma once

#include "losses.hpp"
#include "softmax.hpp"

namespace zipml {
namespace ZIPML_ISA {

// What the rows of a group add up for one output.
struct RowSums {
  F16 loss{}, curvature{}, residual{};
};

class Residuals {
 public:
  Residuals(Affine affine, const SgdOptions& options, const Products& products, size_t outputs)
      : affine_(affine), o_(options), products_(products), outputs_(outputs) {
    for (size_t j = 0; j < affine.columns; ++j) noisy_ |= options.variance[j] != 0;
    if (options.loss == Loss::kSoftmax) softmax_.reset(affine.columns, outputs, options, noisy_);
  }

  // Starts the sums of a mini-batch that the given model meets.
  void begin(const float* model, OutputSums* sums) {
    for (size_t k = 0; k < outputs_; ++k) begin_output(model + k * affine_.columns, sums[k]);
    if (o_.loss == Loss::kSoftmax && noisy_) softmax_.begin(model, sums);
  }

  // Ends them, before the model changes. Coupled outputs take what their gradients are off by, times
  // `sign`, out of the sums over codes: outputs x padded columns.
  void end(const float* model, OutputSums* sums, float sign, float* code_sums) const {
    if (o_.loss == Loss::kSoftmax && noisy_) softmax_.end(model, affine_.slope, sums, sign, code_sums);
  }

  // Turns sums over codes into residuals, in place, for every output of a group of tiles. Output k
  // of tile i is at 64 i from margins + k * stride; in the split form the first samples are half a
  // stride behind, and become the difference of the two residuals.
  void of_group(const TileView* tiles, size_t count, float* margins, size_t stride, OutputSums* sums) {
    if (o_.loss == Loss::kSoftmax) {
      for (size_t i = 0; i < count; ++i) coupled(tiles[i], margins + i * kTileRows, stride, sums);
      return;
    }
    for (size_t k = 0; k < outputs_; ++k) {
      float* m = margins + k * stride;
      RowSums rows;
      for (size_t i = 0; i < count; ++i) {
        float *at = m + i * kTileRows, *first = at + stride / 2;
        switch (o_.loss) {
          case Loss::kHuber: row_terms<Loss::kHuber>(tiles[i], k, at, first, sums[k], rows); break;
          case Loss::kLogistic: row_terms<Loss::kLogistic>(tiles[i], k, at, first, sums[k], rows); break;
          case Loss::kHinge: row_terms<Loss::kHinge>(tiles[i], k, at, first, sums[k], rows); break;
          case Loss::kSquaredHinge: row_terms<Loss::kSquaredHinge>(tiles[i], k, at, first, sums[k], rows); break;
          case Loss::kLsSvm: row_terms<Loss::kLsSvm>(tiles[i], k, at, first, sums[k], rows); break;
          default: row_terms<Loss::kSquared>(tiles[i], k, at, first, sums[k], rows);
        }
      }
      sums[k].loss += lane_sum(rows.loss);
      sums[k].curvature += lane_sum(rows.curvature);
      sums[k].rows += lane_sum(rows.residual);
    }
  }

  // Targets of output k, and how often each row counts: never where there is none.
  ZIPML_INLINE void targets(const TileView& tile, size_t k, float out[64], float counts[64]) const {
    const float* target = tile.chunk->target + tile.row * (o_.class_codes ? 1 : outputs_);
    if (outputs_ == 1 && tile.rows == kTileRows) {
      std::memcpy(out, target, kTileRows * sizeof(float));
      for (size_t r = 0; r < kTileRows; ++r) counts[r] = 1.0f;
    } else if (o_.class_codes) {
      present(tile.rows, counts);
      const float own = static_cast<float>(k);
      for (size_t r = 0; r < kTileRows; ++r) out[r] = r < tile.rows && target[r] == own ? 1.0f : 0.0f;
    } else {
      present(tile.rows, counts);
      for (size_t r = 0; r < kTileRows; ++r) out[r] = r < tile.rows ? target[r * outputs_ + k] : 0.0f;
    }
    weigh(tile, counts);
  }

  // Turns residuals into what codes are multiplied by.
  ZIPML_INLINE void scale_rows(const TileView& tile, float* residuals) const {
    if (!tile.chunk->row_scale) return;
    for (size_t r = 0; r < tile.rows; ++r) residuals[r] *= tile.scale(r);
  }

 private:
  void begin_output(const float* w, OutputSums& s) const {
    s = OutputSums{};
    if (!noisy_) return;
    DoubleLanes sum{};
    size_t j = 0;
    const auto term = [&](size_t at) { return static_cast<double>(o_.variance[at]) * w[at] * w[at]; };
    for (; j + 8 <= affine_.columns; j += 8) {
      for (size_t l = 0; l < 8; ++l) sum.lane[l] += term(j + l);
    }
    s.rounding = lane_sum(sum);
    for (; j < affine_.columns; ++j) s.rounding += term(j);
    // The corrections of a curved loss are the start of a series in this variance. Where it is
    // large the series is wrong and would drive the model away: it is held to a bounded sum.
    const bool bounded = o_.loss == Loss::kLogistic && s.rounding > kSeriesLimit;
    s.correction = bounded ? o_.correction * kSeriesLimit / s.rounding : o_.correction;
  }

 public:
  static ZIPML_INLINE void present(size_t rows, float counts[64]) {
    for (size_t r = 0; r < kTileRows; ++r) counts[r] = r < rows ? 1.0f : 0.0f;
  }
  static ZIPML_INLINE void weigh(const TileView& tile, float* counts) {
    if (!tile.chunk->weight) return;
    for (size_t r = 0; r < tile.rows; ++r) counts[r] = tile.chunk->weight[tile.row + r];
  }

 private:
  // The residuals of a loss that takes all outputs of a row together.
  ZIPML_APART void coupled(const TileView& tile, float* m, size_t stride, OutputSums* sums) {
    alignas(64) float code[64] = {}, counts[64];
    std::memcpy(code, tile.chunk->target + tile.row, tile.rows * sizeof(float));
    present(tile.rows, counts);
    weigh(tile, counts);
    for (size_t k = 0; k < outputs_; ++k) {
      float *at = m + k * stride, *first = at + stride / 2;
      if (o_.split) {
        part_samples(at, first, softmax_.second(k));
        products_.finish_margins(tile, k, first);
        products_.finish_margins(tile, k, softmax_.second(k));
      }
      products_.finish_margins(tile, k, at);
    }
    softmax_.residuals(m, stride, code, counts, sums);
    for (size_t k = 0; k < outputs_; ++k) {
      scale_rows(tile, m + k * stride);
      if (o_.split) scale_rows(tile, m + k * stride + stride / 2);
    }
  }

  // Sums over the codes of the mean and of the first sample become those of both samples.
  ZIPML_INLINE void part_samples(const float* mean, float* first, float* second) const {
    // A code is half of a sum, an entry of a table is whole.
    const F16 twice = splat(affine_.tables[0] ? 1.0f : 2.0f);
    for (size_t r = 0; r < kTileRows; r += 16) {
      const F16 one = load<F16>(first + r) * twice;
      store(first + r, one);
      store(second + r, load<F16>(mean + r) + load<F16>(mean + r) - one);
    }
  }

  template <Loss L>
  ZIPML_APART void row_terms(const TileView& tile, size_t k, float* m, float* m1, const OutputSums& s, RowSums& rows) const {
    o_.split ? split_residuals<L>(tile, k, m, m1, s, rows) : residuals<L>(tile, k, m, s, rows);
  }

  template <Loss L>
  ZIPML_INLINE void residuals(const TileView& tile, size_t k, float* m, const OutputSums& s, RowSums& rows) const {
    alignas(64) float target[64], counts[64];
    products_.finish_margins(tile, k, m);
    targets(tile, k, target, counts);
    const F16 shift = splat(static_cast<float>(0.5 * s.correction * s.rounding)), delta = splat(o_.huber_delta);
    RowSums sums = rows;
    for (size_t r = 0; r < kTileRows; r += 16) {
      const F16 here = load<F16>(counts + r);
      const LossTerms at = loss_terms<L>(load<F16>(m + r), load<F16>(target + r), delta);
      const F16 residual = (at.first - shift * at.third) * here;
      sums.loss += at.value * here;
      sums.curvature += at.second * here;
      sums.residual += residual;
      store(m + r, residual);
    }
    rows = sums;
    scale_rows(tile, m);
  }

  // The paper's estimator (section 2.2): each sample takes the residual of the other one. What
  // meets the mean's codes is the first residual, and the first sample's codes the difference.
  template <Loss L>
  ZIPML_INLINE void split_residuals(const TileView& tile, size_t k, float* m, float* m1, const OutputSums& s,
                                    RowSums& rows) const {
    alignas(64) float target[64], counts[64], m2[64];
    part_samples(m, m1, m2);
    products_.finish_margins(tile, k, m);
    products_.finish_margins(tile, k, m1);
    products_.finish_margins(tile, k, m2);
    targets(tile, k, target, counts);
    // A single sample has twice the variance of the mean of two.
    const F16 shift = splat(static_cast<float>(s.correction * s.rounding)), delta = splat(o_.huber_delta);
    RowSums sums = rows;
    for (size_t r = 0; r < kTileRows; r += 16) {
      const F16 here = load<F16>(counts + r), y = load<F16>(target + r);
      const LossTerms at1 = loss_terms<L>(load<F16>(m1 + r), y, delta);
      const LossTerms at2 = loss_terms<L>(load<F16>(m2 + r), y, delta);
      const LossTerms at = loss_terms<L>(load<F16>(m + r), y, delta);
      const F16 r1 = (at1.first - shift * at1.third) * here, r2 = (at2.first - shift * at2.third) * here;
      sums.loss += at.value * here;
      sums.curvature += at.second * here;
      sums.residual += splat(0.5f) * (r1 + r2);
      store(m + r, r1);
      store(m1 + r, r2 - r1);
    }
    rows = sums;
    scale_rows(tile, m);
    scale_rows(tile, m1);
  }

  Affine affine_;
  const SgdOptions& o_;
  const Products& products_;
  size_t outputs_;
  bool noisy_ = false;
  Softmax softmax_;
};

}  // namespace ZIPML_ISA
}  // namespace zipml
