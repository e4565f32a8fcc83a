// Linear models on packed tiles: margins, gradients and mini-batch SGD.
//
// A mini-batch is taken in groups of up to four tiles that fit the second-level cache: margins of
// each tile, then residuals of the group, then its gradient, while the packed bytes are near. Sums
// run over fixed lanes in a fixed order, so that every instruction set gives the same bits.
#include "native.hpp"
#include "polynomial.hpp"
#include "products.hpp"
#include "refetch.hpp"
#include "update.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

constexpr size_t kGroupBytes = 256 << 10;

size_t group_tiles(const Affine& affine, LookUp look_up, size_t batch_tiles) {
  const bool expands = affine.tables[0] && !in_products(affine, look_up);
  const size_t packed = 8 * static_cast<size_t>(affine.stored_bits);
  const size_t bytes = affine.columns * (affine.woven ? kTileRows * woven_digits(affine)
                                                      : packed + (expands ? kTileRows * affine.table_bytes : 0));
  const size_t fit = greatest<size_t>(1, kGroupBytes / greatest<size_t>(bytes, 1));
  return least(least(fit, kGroupTiles), batch_tiles);
}

LookUp look_up_of(const SgdOptions& o) {
  return o.arithmetic != Arithmetic::kFloat && !o.split ? LookUp::kInProducts : LookUp::kAhead;
}

// Residuals at one model, of a group of tiles after the other.
class Seer {
 public:
  // `again` reads rows again that few bits do not decide, or is null.
  Seer(const Affine& affine, const SgdOptions& options, const float* model, const float* intercept, size_t outputs,
       Refetch* again = nullptr)
      : o_(options), model_(model), intercept_(intercept), vectors_(options.split ? 2 : 1),
        products_(affine, options.arithmetic, outputs, options.seed, options.draw),
        residuals_(affine, options, products_, outputs), again_(again) {
    sums_.reset(outputs);
    margin_.reset(outputs * vectors_ * kGroupTiles * kTileRows);
  }

  // Starts a mini-batch.
  void begin() { residuals_.begin(model_, sums_.data()); }
  // Takes the model as it is; `batch` names the draws that round it.
  void look(uint64_t batch) {
    products_.set_model(model_, intercept_, batch);
    if (again_) again_->look(products_, model_, intercept_, batch);
  }

  ZIPML_INLINE void see(const TileView* tiles, size_t size, const uint8_t* const* ahead, const TileRef* refs) {
    if (again_) return see_bases(tiles, size, refs);
    for (size_t i = 0; i < size; ++i) {
      products_.code_margins(tiles[i].planes, tiles[i].count, vector(0, 0) + i * kTileRows, stride(),
                             ahead ? ahead[i & ~size_t{1}] : nullptr, i % 2);
      if (o_.split) {
        products_.code_margins(tiles[i].first, tiles[i].count, vector(0, 1) + i * kTileRows, stride());
      }
    }
    residuals_.of_group(tiles, size, margin_.data(), stride(), sums_.data());
  }

  // Ends it: what the gradients are off by, where outputs are coupled, leaves the sums over codes.
  void end(float* code_sums, float sign) { residuals_.end(model_, sums_.data(), sign, code_sums); }

  size_t vectors() const { return vectors_; }
  size_t stride() const { return vectors_ * kGroupTiles * kTileRows; }
  // Residuals of output k: of the mean, and in the split form of the difference of the samples.
  float* vector(size_t k, size_t v) { return margin_.data() + (k * vectors_ + v) * kGroupTiles * kTileRows; }
  Products& products() { return products_; }
  OutputSums& sums(size_t k) { return sums_[k]; }
  OutputSums* all_sums() { return sums_.data(); }

 private:
  __attribute__((noinline)) void see_bases(const TileView* tiles, size_t size, const TileRef* refs) {
    for (size_t i = 0; i < size; ++i) {
      products_.code_margins(&tiles[i].base, 1, vector(0, 0) + i * kTileRows, stride());
    }
    again_->of_group(products_, residuals_, tiles, refs, size, margin_.data(), stride(), sums_.data());
  }

  const SgdOptions& o_;
  const float *model_, *intercept_;
  size_t vectors_;
  Products products_;
  Residuals residuals_;
  Refetch* again_;
  Buffer<OutputSums> sums_;
  Buffer<float> margin_;  // outputs x vectors x group x 64: margins, then residuals
};

class Batches {
 public:
  // `anchor` is where gradients are compared to, or null; so is `again`, which reads rows again.
  Batches(const ChunkView* chunks, const Affine& affine, const SgdOptions& options, SgdState state, Seer* anchor,
          Refetch* again = nullptr)
      : chunks_(chunks), affine_(affine), o_(options), state_(state),
        group_(group_tiles(affine, look_up_of(options), options.batch_tiles)),
        loader_(chunks, affine, group_, options.split, options.seed, options.draw, look_up_of(options),
                again != nullptr),
        seer_(affine, options, state.model, state.intercept, state.outputs, again), anchor_(anchor), again_(again),
        update_(affine, options, state) {
    code_sum_.reset(state.outputs * padded(affine.columns));
  }

  // Runs one mini-batch of tiles, whose list goes on until `end`, and returns its rows.
  size_t run(const TileRef* tiles, size_t count, const TileRef* end, double step, double* loss_sum) {
    seer_.begin();
    if (anchor_) anchor_->begin();
    code_sum_.clear();
    size_t rows = 0;
    for (size_t t = 0; t < count; t += group_) {
      const size_t size = least(group_, count - t);
      for (size_t i = 0; i < size; ++i) {
        loader_.view(i, tiles[t + i], views_[i]);
        rows += views_[i].rows;
      }
      if (t == 0) seer_.look(views_[0].id);
      const uint8_t* const* ahead = look_ahead(tiles + t + size, end);
      seer_.see(views_, size, ahead, tiles + t);
      if (anchor_) subtract_anchor(size, t == 0);
      add_gradient(size, ahead);
      if (again_) again_->add_gradient(code_sum_.data(), padded(affine_.columns), seer_.all_sums());
    }
    seer_.end(code_sum_.data(), 1.0f);
    if (anchor_) anchor_->end(code_sum_.data(), -1.0f);
    for (size_t k = 0; k < state_.outputs; ++k) {
      OutputSums& s = seer_.sums(k);
      // E loss(q.w) - loss(a.w) = 1/2 loss'' sum of variance w^2
      *loss_sum += again_ ? lost_again(k, s) : s.loss - 0.5 * s.curvature * s.rounding;
      if (anchor_) s.rows -= anchor_->sums(k).rows;
      const float* sums = code_sum_.data() + k * padded(affine_.columns);
      const bool by_row = views_[0].chunk->row_scale != nullptr;
      if (state_.gradient) {
        update_.add_gradient(k, s, sums, by_row);
      } else {
        update_.step(k, s, anchor_ ? anchor_->sums(k) : s, sums, by_row, step, rows);
      }
    }
    return rows;
  }

 private:
  double lost_again(size_t k, const OutputSums& s) const {
    const size_t d = affine_.columns;
    return again_->lost(state_.model + k * d, state_.intercept[k], s, code_sum_.data() + k * padded(d));
  }

  // Residuals become differences to those of the anchor on the same tiles.
  __attribute__((noinline)) void subtract_anchor(size_t size, bool first) {
    if (first) anchor_->look(views_[0].id);
    anchor_->see(views_, size, nullptr, nullptr);
    for (size_t v = 0; v < state_.outputs * seer_.vectors(); ++v) {
      float* own = seer_.vector(v / seer_.vectors(), v % seer_.vectors());
      const float* other = anchor_->vector(v / seer_.vectors(), v % seer_.vectors());
      for (size_t r = 0; r < size * kTileRows; r += 16) store(own + r, load<F16>(own + r) - load<F16>(other + r));
    }
  }

  // Where the tiles of the next group lie, in case they are as large as what the products read.
  const uint8_t* const* look_ahead(const TileRef* next, const TileRef* end) {
    const bool expands = affine_.tables[0] && !in_products(affine_, look_up_of(o_));
    if (affine_.woven || (expands && affine_.stored_bits != 8) || next >= end) return nullptr;
    for (size_t i = 0; i < group_; ++i) {
      const TileRef ref = next[least<size_t>(i, static_cast<size_t>(end - next) - 1)];
      ahead_[i] = chunks_[ref.chunk].codes + tile_offset(ref.tile, affine_.columns, affine_.stored_bits);
    }
    return ahead_;
  }

  void add_gradient(size_t size, const uint8_t* const* ahead) {
    for (size_t v = 0; v < seer_.vectors(); ++v) {
      for (size_t k = 0; k < state_.outputs; ++k) {
        float* r = seer_.vector(k, v);
        seer_.products().round_residuals(views_, size, k, static_cast<uint32_t>(k * seer_.vectors() + v), r);
        F16 sum = splat(0.0f);
        for (size_t i = 0; i < size * kTileRows; i += 16) sum += load<F16>(r + i);
        seer_.sums(k).scaled += (v ? 0.5 : 1.0) * lane_sum(sum);
      }
      seer_.products().add_code_gradient(views_, size, v == 1, seer_.vector(0, v), seer_.stride(),
                                         v && affine_.tables[0] ? 0.5f : 1.0f, ahead, code_sum_.data(),
                                         padded(affine_.columns));
    }
  }

  const ChunkView* chunks_;
  Affine affine_;
  const SgdOptions& o_;
  SgdState state_;
  size_t group_;
  Loader loader_;
  Seer seer_;
  Seer* anchor_;
  Refetch* again_;
  Update update_;
  Buffer<float> code_sum_;  // outputs x padded columns
  TileView views_[kGroupTiles];
  const uint8_t* ahead_[kGroupTiles] = {};
};

template <class Batch>
SgdResult run_all(Batch& batch, const TileRef* tiles, size_t count, size_t d, const SgdOptions& o,
                  SgdState state) {
  const size_t batch_tiles = least(o.batch_tiles, greatest<size_t>(count, 1));
  const size_t batches = (count + batch_tiles - 1) / batch_tiles;
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

}  // namespace

SgdResult sgd(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
              const SgdOptions& o, SgdState state) {
  if (o.polynomial.samples) {
    PolynomialBatches batch(chunks, affine, o, state);
    return run_all(batch, tiles, count, affine.columns, o, state);
  }
  if (o.finer) {
    Refetch again(affine, o, state.outputs);
    Batches batch(chunks, affine, o, state, nullptr, &again);
    return run_all(batch, tiles, count, affine.columns, o, state);
  }
  if (!state.anchor.model) {
    Batches batch(chunks, affine, o, state, nullptr);
    return run_all(batch, tiles, count, affine.columns, o, state);
  }
  Seer anchor(affine, o, state.anchor.model, state.anchor.intercept, state.outputs);
  Batches batch(chunks, affine, o, state, &anchor);
  return run_all(batch, tiles, count, affine.columns, o, state);
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
