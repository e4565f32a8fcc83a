// Linear models on packed tiles: margins, gradients and mini-batch SGD.
//
// A mini-batch is taken in groups of up to four tiles that fit the second-level cache: margins of
// each tile, then residuals of the group, then its gradient, while the packed bytes are near. Sums
// run over fixed lanes in a fixed order, so that every instruction set gives the same bits.
#include "native.hpp"
#include "products.hpp"
#include "residuals.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

constexpr size_t kGroupBytes = 256 << 10;

size_t group_tiles(const Affine& affine, LookUp look_up, size_t batch_tiles) {
  const bool expands = affine.tables[0] && !in_products(affine, look_up);
  const size_t bytes = affine.columns * (8 * static_cast<size_t>(affine.stored_bits) +
                                         (expands ? kTileRows * affine.table_bytes : 0));
  const size_t fit = greatest<size_t>(1, kGroupBytes / greatest<size_t>(bytes, 1));
  return least(least(fit, kGroupTiles), batch_tiles);
}

LookUp look_up_of(const SgdOptions& o) {
  return o.arithmetic != Arithmetic::kFloat && !o.split ? LookUp::kInProducts : LookUp::kAhead;
}

class Batches {
 public:
  Batches(const ChunkView* chunks, Affine affine, const SgdOptions& options, SgdState state)
      : chunks_(chunks), affine_(affine), o_(options), state_(state),
        group_(group_tiles(affine, look_up_of(options), options.batch_tiles)),
        loader_(chunks, affine, group_, options.split, options.seed, options.draw, look_up_of(options)),
        products_(affine, options.arithmetic, state.outputs, options.seed, options.draw),
        residuals_(affine, options, products_, state.outputs), vectors_(options.split ? 2 : 1) {
    sums_.reset(state.outputs);
    code_sum_.reset(state.outputs * padded(affine.columns));
    margin_.reset(state.outputs * vectors_ * kGroupTiles * kTileRows);
    for (size_t j = 0; j < affine.columns; ++j) penalised_ |= options.l2[j] != 0;
  }

  // Runs one mini-batch of tiles, whose list goes on until `end`, and returns its rows.
  size_t run(const TileRef* tiles, size_t count, const TileRef* end, double step, double* loss_sum) {
    residuals_.begin(state_.model, sums_.data());
    code_sum_.clear();
    size_t rows = 0;
    for (size_t t = 0; t < count; t += group_) {
      const size_t size = least(group_, count - t);
      for (size_t i = 0; i < size; ++i) {
        loader_.view(i, tiles[t + i], views_[i]);
        rows += views_[i].rows;
      }
      if (t == 0) products_.set_model(state_.model, state_.intercept, views_[0].id);
      const uint8_t* const* ahead = look_ahead(tiles + t + size, end);
      for (size_t i = 0; i < size; ++i) {
        products_.code_margins(views_[i].planes, views_[i].count, vector(0, 0) + i * kTileRows, output_stride(),
                               ahead ? ahead[i & ~size_t{1}] : nullptr, i % 2);
        if (o_.split) {
          products_.code_margins(views_[i].first, views_[i].count, vector(0, 1) + i * kTileRows, output_stride());
        }
      }
      residuals_.of_group(views_, size, margin_.data(), output_stride(), sums_.data());
      add_gradient(size, ahead);
    }
    for (size_t k = 0; k < state_.outputs; ++k) {
      const OutputSums& s = sums_[k];
      // E loss(q.w) - loss(a.w) = 1/2 loss'' sum of variance w^2
      *loss_sum += s.loss - 0.5 * s.curvature * s.rounding;
      update(k, step, rows);
    }
    return rows;
  }

 private:
  size_t output_stride() const { return vectors_ * kGroupTiles * kTileRows; }
  float* vector(size_t k, size_t v) { return margin_.data() + (k * vectors_ + v) * kGroupTiles * kTileRows; }

  // Where the tiles of the next group lie, in case they are as large as what the products read.
  const uint8_t* const* look_ahead(const TileRef* next, const TileRef* end) {
    const bool expands = affine_.tables[0] && !in_products(affine_, look_up_of(o_));
    if ((expands && affine_.stored_bits != 8) || next >= end) return nullptr;
    for (size_t i = 0; i < group_; ++i) {
      const TileRef ref = next[least<size_t>(i, static_cast<size_t>(end - next) - 1)];
      ahead_[i] = chunks_[ref.chunk].codes + tile_offset(ref.tile, affine_.columns, affine_.stored_bits);
    }
    return ahead_;
  }

  void add_gradient(size_t size, const uint8_t* const* ahead) {
    for (size_t v = 0; v < vectors_; ++v) {
      for (size_t k = 0; k < state_.outputs; ++k) {
        float* r = vector(k, v);
        products_.round_residuals(views_, size, k, static_cast<uint32_t>(k * vectors_ + v), r);
        F16 sum = splat(0.0f);
        for (size_t i = 0; i < size * kTileRows; i += 16) sum += load<F16>(r + i);
        sums_[k].scaled += (v ? 0.5 : 1.0) * lane_sum(sum);
      }
      products_.add_code_gradient(views_, size, v == 1, vector(0, v), output_stride(),
                                  v && affine_.tables[0] ? 0.5f : 1.0f, ahead, code_sum_.data(),
                                  padded(affine_.columns));
    }
  }

  void update(size_t k, double step, size_t rows) {
    const OutputSums& s = sums_[k];
    const double scale = 1.0 / o_.batch_rows;
    // The split form has no second-order bias: what is not to be taken out is put in.
    const double kept = o_.split ? 1.0 - s.correction : -s.correction;
    const float ridge = static_cast<float>(kept * s.curvature * scale);
    const float scaled = static_cast<float>(s.scaled * scale);
    // Rounded residuals where they stand for the rows too: then offset and centre cancel.
    const float centre = views_[0].chunk->row_scale ? static_cast<float>(s.rows * scale) : scaled;
    const float inverse = static_cast<float>(scale), eta = static_cast<float>(step);
    // A mini-batch that is not full counts for less, and its penalty with it.
    const float penalty = static_cast<float>(step * scale * static_cast<double>(rows));
    const float* sums = code_sum_.data() + k * padded(affine_.columns);
    float* w = state_.model + k * affine_.columns;
    for (size_t j = 0; j < affine_.columns; ++j) {
      const float g = affine_.slope[j] * (sums[j] * inverse) + affine_.offset[j] * scaled -
                      affine_.centre[j] * centre + ridge * o_.variance[j] * w[j];
      w[j] -= eta * g;
    }
    // implicit in the penalty: stable however strong it is
    for (size_t j = 0; penalised_ && j < affine_.columns; ++j) w[j] /= 1.0f + penalty * o_.l2[j];
    if (o_.fit_intercept) state_.intercept[k] -= eta * static_cast<float>(s.rows * scale);
  }

  const ChunkView* chunks_;
  Affine affine_;
  const SgdOptions& o_;
  SgdState state_;
  size_t group_;
  Loader loader_;
  Products products_;
  Residuals residuals_;
  size_t vectors_;
  bool penalised_ = false;
  Buffer<OutputSums> sums_;
  Buffer<float> code_sum_;  // outputs x padded columns
  Buffer<float> margin_;    // outputs x vectors x group x 64: margins, then residuals
  TileView views_[kGroupTiles];
  const uint8_t* ahead_[kGroupTiles] = {};
};

}  // namespace

SgdResult sgd(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
              const SgdOptions& o, SgdState state) {
  const size_t d = affine.columns, batch_tiles = least(o.batch_tiles, greatest<size_t>(count, 1));
  const size_t batches = (count + batch_tiles - 1) / batch_tiles;
  Batches batch(chunks, affine, o, state);
  SgdResult result{0.0, 0, 0};
  for (size_t i = 0; i < batches; ++i) {
    const size_t start = i * batch_tiles, size = least(batch_tiles, count - start);
    const double at = batches > 1 ? static_cast<double>(i) / static_cast<double>(batches - 1) : 0.0;
    result.rows += batch.run(tiles + start, size, tiles + count, o.step_first + (o.step_last - o.step_first) * at,
                             &result.loss_sum);
    if (i < o.average_from) continue;
    for (size_t j = 0; j < state.outputs * d; ++j) state.model_sum[j] += state.model[j];
    for (size_t k = 0; k < state.outputs; ++k) state.intercept_sum[k] += state.intercept[k];
    ++result.averaged;
  }
  return result;
}

void margins(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
             const float* model, const float* intercept, size_t outputs, float* out) {
  Loader loader(chunks, affine, 1, false, 0, 0);
  Products products(affine, Arithmetic::kFloat, outputs, 0, 0);
  products.set_model(model, intercept, 0);
  TileView view;
  Buffer<float> all(outputs * kTileRows);
  for (size_t t = 0; t < count; ++t) {
    loader.view(0, tiles[t], view);
    products.code_margins(view.planes, view.count, all.data(), kTileRows);
    for (size_t k = 0; k < outputs; ++k) {
      float* m = all.data() + k * kTileRows;
      products.finish_margins(view, k, m);
      for (size_t r = 0; r < view.rows; ++r) out[r * outputs + k] = m[r];
    }
    out += view.rows * outputs;
  }
}

void gradient(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
              const float* residuals, size_t outputs, double* out) {
  const size_t d = affine.columns;
  Loader loader(chunks, affine, 1, false, 0, 0);
  Products products(affine, Arithmetic::kFloat, outputs, 0, 0);
  const size_t stride = padded(d);
  Buffer<float> code_sum(outputs * stride), scaled(outputs * kTileRows);
  TileView view;
  std::memset(out, 0, outputs * d * sizeof(double));
  for (size_t t = 0; t < count; ++t) {
    loader.view(0, tiles[t], view);
    scaled.clear();
    code_sum.clear();
    for (size_t k = 0; k < outputs; ++k) {
      double rows = 0, scaled_sum = 0;
      float* to = scaled.data() + k * kTileRows;
      for (size_t r = 0; r < view.rows; ++r) {
        const float residual = residuals[r * outputs + k];
        to[r] = residual * view.scale(r);
        rows += residual;
        scaled_sum += to[r];
      }
      for (size_t j = 0; j < d; ++j) out[k * d + j] += affine.offset[j] * scaled_sum - affine.centre[j] * rows;
    }
    products.add_code_gradient(&view, 1, false, scaled.data(), kTileRows, 1.0f, nullptr, code_sum.data(), stride);
    for (size_t k = 0; k < outputs; ++k) {
      const float* sums = code_sum.data() + k * stride;
      for (size_t j = 0; j < d; ++j) out[k * d + j] += static_cast<double>(affine.slope[j]) * sums[j];
    }
    residuals += view.rows * outputs;
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
