// Linear models on packed tiles, in single precision: margins, gradients and mini-batch SGD.
//
// Codes are turned to floats a column of a tile at a time and never leave the cache; the affine
// map from code to value is folded into the model and out of the gradient. Sums run over a fixed
// number of lanes in a fixed order, so that every instruction set gives the same bits.
#include <cmath>

#include "native.hpp"
#include "layout.hpp"
#include "philox.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

constexpr size_t kRows = kTileRows;
// Variance of the margin up to which the logistic correction is applied in full: above it models ran
// away on heavy-tailed columns at 4, at 1 the gain was smaller (docs/estimators.md).
constexpr double kSeriesLimit = 2.0;

ZIPML_INLINE float lane_sum(const float lanes[8]) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

ZIPML_INLINE float dot64(const float* a, const float* b) {
  float lanes[8] = {};
  for (size_t r = 0; r < kRows; r += 8) {
    for (size_t l = 0; l < 8; ++l) lanes[l] += a[r + l] * b[r + l];
  }
  return lane_sum(lanes);
}

ZIPML_INLINE void add_scaled(float* out, float factor, const float* codes) {
  for (size_t r = 0; r < kRows; ++r) out[r] += factor * codes[r];
}

struct Tile {
  const ChunkView* chunk;
  const uint8_t* codes;
  size_t row, rows, slots;  // first row in the chunk, rows, row slots

  Tile(const ChunkView* chunks, TileRef ref, const Affine& affine)
      : chunk(chunks + ref.chunk), row(ref.tile * kRows) {
    codes = chunk->codes + tile_offset(ref.tile, affine.columns, affine.stored_bits);
    rows = rows_in_tile(chunk->rows, ref.tile);
    slots = slots_in_tile(rows);
  }

  ZIPML_INLINE void column(const Affine& affine, size_t j, uint16_t z[64]) const {
    unpack_column(codes, slots, affine.stored_bits, affine.columns, j, z);
  }
  ZIPML_INLINE float scale(size_t r) const { return chunk->row_scale ? chunk->row_scale[row + r] : 1.0f; }
};

ZIPML_INLINE void to_float(const uint16_t z[64], float out[64]) {
  for (size_t r = 0; r < kRows; ++r) out[r] = static_cast<float>(z[r]);
}

// The two samples behind a sum of codes: where they differ, the mask says which rounded up.
ZIPML_INLINE void split_codes(const uint16_t z[64], uint64_t mask, float first[64], float second[64]) {
  for (size_t r = 0; r < kRows; ++r) {
    const int low = z[r] >> 1;
    const int up = static_cast<int>((mask >> r) & 1u) & (z[r] & 1);
    first[r] = static_cast<float>(low + up);
    second[r] = static_cast<float>(z[r] - low - up);
  }
}

// The model with the affine map folded in: margin = scale * (linear + sum slope w z) + constant.
struct Folded {
  Buffer<float> factor;  // outputs x columns
  Buffer<float> linear, constant;

  void fold(const Affine& affine, const float* model, const float* intercept, size_t outputs) {
    factor.reset(outputs * affine.columns);
    linear.reset(outputs);
    constant.reset(outputs);
    for (size_t k = 0; k < outputs; ++k) {
      const float* w = model + k * affine.columns;
      double lin = 0, con = intercept[k];
      for (size_t j = 0; j < affine.columns; ++j) {
        factor[k * affine.columns + j] = affine.slope[j] * w[j];
        lin += static_cast<double>(affine.offset[j]) * w[j];
        con -= static_cast<double>(affine.centre[j]) * w[j];
      }
      linear[k] = static_cast<float>(lin);
      constant[k] = static_cast<float>(con);
    }
  }
};

ZIPML_INLINE void tile_margins(const Tile& tile, const Affine& affine, const Folded& folded,
                               size_t outputs, float* out /* outputs x 64 */) {
  alignas(64) uint16_t z[64];
  alignas(64) float codes[64];
  std::memset(out, 0, outputs * kRows * sizeof(float));
  for (size_t j = 0; j < affine.columns; ++j) {
    tile.column(affine, j, z);
    to_float(z, codes);
    for (size_t k = 0; k < outputs; ++k) {
      add_scaled(out + k * kRows, folded.factor[k * affine.columns + j], codes);
    }
  }
  for (size_t k = 0; k < outputs; ++k) {
    for (size_t r = 0; r < tile.rows; ++r) {
      float& m = out[k * kRows + r];
      m = tile.scale(r) * (m + folded.linear[k]) + folded.constant[k];
    }
  }
}

// Adds residual * (code, scale, 1) of a tile: code_sum[j] per output, scaled and plain row sums.
ZIPML_INLINE void tile_gradient(const Tile& tile, const Affine& affine, const float* scaled,
                                size_t outputs, float* code_sum) {
  alignas(64) uint16_t z[64];
  alignas(64) float codes[64];
  for (size_t j = 0; j < affine.columns; ++j) {
    tile.column(affine, j, z);
    to_float(z, codes);
    for (size_t k = 0; k < outputs; ++k) {
      code_sum[k * affine.columns + j] += dot64(codes, scaled + k * kRows);
    }
  }
}

// The loss of a row and its derivatives by the margin.
struct LossTerms {
  float value, first, second, third;
};

ZIPML_INLINE LossTerms loss_terms(Loss loss, float margin, float target) {
  if (loss == Loss::kSquared) {
    const float residual = margin - target;
    return {0.5f * residual * residual, residual, 1.0f, 0.0f};
  }
  const float sign = target > 0.5f ? 1.0f : -1.0f;
  const float x = sign * margin;
  const float e = __builtin_expf(-__builtin_fabsf(x));  // in (0, 1]: no overflow on either side
  const float wrong = x >= 0 ? e / (1.0f + e) : 1.0f / (1.0f + e);
  const float value = __builtin_log1pf(e) + (x < 0 ? -x : 0.0f);
  const float second = wrong * (1.0f - wrong);
  return {value, -sign * wrong, second, -sign * second * (1.0f - 2.0f * wrong)};
}

struct Batch {
  Buffer<float> code_sum;  // outputs x columns
  Buffer<double> scaled_sum, plain_sum, curvature;
  Buffer<double> rounding;  // variance of the margins that rounding causes: sum of v w^2
  Buffer<double> correction;  // part of the rounding bias to take out
  double loss = 0;
  size_t rows = 0;

  explicit Batch(size_t outputs, size_t columns)
      : code_sum(outputs * columns), scaled_sum(outputs), plain_sum(outputs), curvature(outputs),
        rounding(outputs), correction(outputs) {}
  void clear() {
    code_sum.clear();
    scaled_sum.clear();
    plain_sum.clear();
    curvature.clear();
    loss = 0;
    rows = 0;
  }
  ZIPML_INLINE void add_row(size_t k, LossTerms at_mean, float residual, float scale) {
    loss += at_mean.value;
    curvature[k] += at_mean.second;
    plain_sum[k] += residual;
    scaled_sum[k] += static_cast<double>(residual) * scale;
  }
};

struct Scratch {
  Buffer<float> first, second;  // margins, then residuals times the row scale: outputs x 64
  Buffer<uint64_t> masks;
};

ZIPML_INLINE void batch_tile(const Tile& tile, const Affine& affine, const Folded& folded,
                             const SgdOptions& options, size_t outputs, Scratch& s, Batch& batch) {
  tile_margins(tile, affine, folded, outputs, s.first.data());
  for (size_t k = 0; k < outputs; ++k) {
    float* m = s.first.data() + k * kRows;
    const float shift = static_cast<float>(0.5 * batch.correction[k] * batch.rounding[k]);
    for (size_t r = 0; r < tile.rows; ++r) {
      const float target = tile.chunk->target[(tile.row + r) * outputs + k];
      const LossTerms terms = loss_terms(options.loss, m[r], target);
      const float scale = tile.scale(r);
      const float residual = terms.first - shift * terms.third;
      batch.add_row(k, terms, residual, scale);
      m[r] = residual * scale;
    }
    for (size_t r = tile.rows; r < kRows; ++r) m[r] = 0.0f;
  }
  tile_gradient(tile, affine, s.first.data(), outputs, batch.code_sum.data());
}

// The paper's estimator (section 2.2): each sample takes the residual of the other one.
ZIPML_INLINE void batch_tile_split(const Tile& tile, uint64_t tile_id, const Affine& affine,
                                   const Folded& folded, const SgdOptions& options, size_t outputs,
                                   Scratch& s, Batch& batch) {
  alignas(64) uint16_t z[64];
  alignas(64) float a[64], b[64];
  const PhiloxKey key(options.seed);
  s.first.clear();
  s.second.clear();
  for (size_t j = 0; j < affine.columns; ++j) {
    if (j % 16 == 0) {
      split_masks(key, tile_id, static_cast<uint32_t>(j / 16), options.draw, s.masks.data() + j);
    }
    tile.column(affine, j, z);
    split_codes(z, s.masks[j], a, b);
    for (size_t k = 0; k < outputs; ++k) {
      // slope is per unit of the sum; a single sample's code counts twice
      const float factor = 2.0f * folded.factor[k * affine.columns + j];
      add_scaled(s.first.data() + k * kRows, factor, a);
      add_scaled(s.second.data() + k * kRows, factor, b);
    }
  }
  for (size_t k = 0; k < outputs; ++k) {
    float* m1 = s.first.data() + k * kRows;
    float* m2 = s.second.data() + k * kRows;
    // A single sample has twice the variance of the mean of two.
    const float shift = static_cast<float>(batch.correction[k] * batch.rounding[k]);
    for (size_t r = 0; r < tile.rows; ++r) {
      const float target = tile.chunk->target[(tile.row + r) * outputs + k];
      const float scale = tile.scale(r);
      const float x1 = scale * (m1[r] + folded.linear[k]) + folded.constant[k];
      const float x2 = scale * (m2[r] + folded.linear[k]) + folded.constant[k];
      const LossTerms at1 = loss_terms(options.loss, x1, target);
      const LossTerms at2 = loss_terms(options.loss, x2, target);
      const float r1 = at1.first - shift * at1.third, r2 = at2.first - shift * at2.third;
      const LossTerms at_mean = loss_terms(options.loss, 0.5f * (x1 + x2), target);
      batch.add_row(k, at_mean, 0.5f * (r1 + r2), scale);
      m1[r] = r1 * scale;
      m2[r] = r2 * scale;
    }
    for (size_t r = tile.rows; r < kRows; ++r) m1[r] = m2[r] = 0.0f;
  }
  for (size_t j = 0; j < affine.columns; ++j) {
    tile.column(affine, j, z);
    split_codes(z, s.masks[j], a, b);
    for (size_t k = 0; k < outputs; ++k) {
      // one half for the two terms, two for the slope of a single sample
      batch.code_sum[k * affine.columns + j] +=
          dot64(a, s.second.data() + k * kRows) + dot64(b, s.first.data() + k * kRows);
    }
  }
}

void update(const Affine& affine, const SgdOptions& o, const Batch& batch, double step, size_t k,
            float* w, float* intercept) {
  const double scale = 1.0 / o.batch_rows;
  // The split form has no second-order bias: what is not to be taken out is put in.
  const double kept = o.split ? 1.0 - batch.correction[k] : -batch.correction[k];
  const float ridge = static_cast<float>(kept * batch.curvature[k] * scale);
  const float rows = static_cast<float>(batch.plain_sum[k] * scale);
  const float scaled = static_cast<float>(batch.scaled_sum[k] * scale);
  const float inverse = static_cast<float>(scale), eta = static_cast<float>(step);
  // A mini-batch that is not full counts for less, and its penalty with it.
  const float penalty = static_cast<float>(step * scale * static_cast<double>(batch.rows));
  const float* sums = batch.code_sum.data() + k * affine.columns;
  for (size_t j = 0; j < affine.columns; ++j) {
    const float g = affine.slope[j] * (sums[j] * inverse) + affine.offset[j] * scaled -
                    affine.centre[j] * rows + ridge * o.variance[j] * w[j];
    // implicit in the penalty: stable however strong it is
    w[j] = (w[j] - eta * g) / (1.0f + penalty * o.l2[j]);
  }
  if (o.fit_intercept) *intercept -= eta * rows;
}

}  // namespace

SgdResult sgd(const ChunkView* chunks, const TileRef* tiles, size_t count,
                           Affine affine, const SgdOptions& o, SgdState state) {
  const size_t d = affine.columns, outputs = state.outputs;
  const size_t batches = (count + o.batch_tiles - 1) / o.batch_tiles;
  Batch batch(outputs, d);
  Folded folded;
  Scratch scratch;
  scratch.first.reset(outputs * kRows);
  scratch.second.reset(outputs * kRows);
  scratch.masks.reset((d + 15) / 16 * 16);
  SgdResult result{0.0, 0, 0};
  for (size_t i = 0; i < batches; ++i) {
    batch.clear();
    folded.fold(affine, state.model, state.intercept, outputs);
    for (size_t k = 0; k < outputs; ++k) {
      const float* w = state.model + k * d;
      double rounding = 0;
      for (size_t j = 0; j < d; ++j) rounding += static_cast<double>(o.variance[j]) * w[j] * w[j];
      batch.rounding[k] = rounding;
      // The corrections of a curved loss are the start of a series in this variance. Where it is
      // large the series is wrong and would drive the model away: it is held to a bounded sum.
      const bool bounded = o.loss == Loss::kLogistic && rounding > kSeriesLimit;
      batch.correction[k] = bounded ? o.correction * kSeriesLimit / rounding : o.correction;
    }
    const size_t end = least(count, (i + 1) * o.batch_tiles);
    for (size_t t = i * o.batch_tiles; t < end; ++t) {
      const Tile tile(chunks, tiles[t], affine);
      if (o.split) {
        batch_tile_split(tile, tile.chunk->first_tile + tiles[t].tile, affine, folded, o, outputs,
                         scratch, batch);
      } else {
        batch_tile(tile, affine, folded, o, outputs, scratch, batch);
      }
      batch.rows += tile.rows;
    }
    result.rows += batch.rows;
    result.loss_sum += batch.loss;
    const double at = batches > 1 ? static_cast<double>(i) / static_cast<double>(batches - 1) : 0.0;
    const double step = o.step_first + (o.step_last - o.step_first) * at;
    for (size_t k = 0; k < outputs; ++k) {
      float* w = state.model + k * d;
      // E loss(q.w) - loss(a.w) = 1/2 loss'' sum of variance w^2
      result.loss_sum -= 0.5 * batch.curvature[k] * batch.rounding[k];
      update(affine, o, batch, step, k, w, state.intercept + k);
      if (i >= o.average_from) {
        for (size_t j = 0; j < d; ++j) state.model_sum[k * d + j] += w[j];
        state.intercept_sum[k] += state.intercept[k];
      }
    }
    if (i >= o.average_from) ++result.averaged;
  }
  return result;
}

void margins(const ChunkView* chunks, const TileRef* tiles, size_t count,
                          Affine affine, const float* model, const float* intercept,
                          size_t outputs, float* out) {
  Folded folded;
  folded.fold(affine, model, intercept, outputs);
  Buffer<float> m(outputs * kRows);
  for (size_t t = 0; t < count; ++t) {
    const Tile tile(chunks, tiles[t], affine);
    tile_margins(tile, affine, folded, outputs, m.data());
    for (size_t r = 0; r < tile.rows; ++r) {
      for (size_t k = 0; k < outputs; ++k) *out++ = m[k * kRows + r];
    }
  }
}

void gradient(const ChunkView* chunks, const TileRef* tiles, size_t count,
                           Affine affine, const float* residuals, size_t outputs, double* out) {
  const size_t d = affine.columns;
  Buffer<float> scaled(outputs * kRows), code_sum(outputs * d);
  std::memset(out, 0, outputs * d * sizeof(double));
  for (size_t t = 0; t < count; ++t) {
    const Tile tile(chunks, tiles[t], affine);
    Buffer<double> plain_sum(outputs), scaled_sum(outputs);
    scaled.clear();
    code_sum.clear();
    for (size_t r = 0; r < tile.rows; ++r) {
      for (size_t k = 0; k < outputs; ++k) {
        const float residual = *residuals++;
        scaled[k * kRows + r] = residual * tile.scale(r);
        plain_sum[k] += residual;
        scaled_sum[k] += scaled[k * kRows + r];
      }
    }
    tile_gradient(tile, affine, scaled.data(), outputs, code_sum.data());
    for (size_t k = 0; k < outputs; ++k) {
      for (size_t j = 0; j < d; ++j) {
        out[k * d + j] += static_cast<double>(affine.slope[j]) * code_sum[k * d + j] +
                          affine.offset[j] * scaled_sum[k] - affine.centre[j] * plain_sum[k];
      }
    }
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
