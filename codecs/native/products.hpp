// Products of tiles with models and with residuals, in the arithmetic that was asked for. In
// single precision or in integers, what the codes meet is `factor` = slope * model; offset and
// centre are folded into two constants of each output.
#pragma once

#include "planes.hpp"
#include "rounding.hpp"

namespace zipml {
namespace ZIPML_ISA {

// Codes of 16 rows as integers, all planes together.
ZIPML_INLINE I16 row_codes(const Plane* planes, int count, size_t j, int block) {
  I16 z = splat(int32_t{0});
  for (int p = 0; p < count; ++p) {
    const int width = planes[p].width;
    const size_t bytes = 8 * static_cast<size_t>(width);
    const uint8_t* from = planes[p].digits + j * bytes;
    I16 digits;
    if (width == 1) {  // rows 16 block + 0 .. 15 are bits 2 block and 2 block + 1 of eight bytes
      uint64_t eight[2];
      std::memcpy(eight, from, 8);
      eight[1] = eight[0] >> 1;
      digits = (widen_bytes(reinterpret_cast<const uint8_t*>(eight)) >> (2 * block)) & splat(int32_t{1});
    } else {
      const int blocks = static_cast<int>(bytes / 16);
      digits = (widen_bytes(from + 16 * (block % blocks)) >> (width * (block / blocks))) &
               splat((1 << width) - 1);
    }
    z += digits << planes[p].shift;
  }
  return z;
}

class Products {
 public:
  Products(Affine affine, Arithmetic arithmetic, size_t outputs, uint64_t seed, uint32_t draw)
      : affine_(affine), arithmetic_(arithmetic), outputs_(outputs), key_(seed), draw_(draw),
        stride_((affine.columns + 63) / 64 * 64 + 64),
        form_(DigitForm::of(arithmetic, affine.tables[0] || affine.woven || affine.stored_bits >= 8 ? 8 : 4)) {
    factor_.reset(outputs * stride_);
    constant_.reset(outputs);
    linear_.reset(outputs);
    per_code_.reset(2 * stride_);
    for (size_t j = 0; j < affine.columns; ++j) {
      // A column of one value has no slope: what it adds does not pass through the codes.
      const float slope = affine.slope[j];
      per_code_[j] = slope != 0 ? affine.offset[j] / slope : 0.0f;
      per_code_[stride_ + j] = slope != 0 ? affine.centre[j] / slope : 0.0f;
      flat_ |= slope == 0;
      centred_ |= affine.centre[j] != 0;
    }
    if (integer()) {
      digits_ = static_cast<size_t>(form_.digits);
      entries_.reset(outputs * digits_ * stride_);
      scale_.reset(outputs);
      residual_digits_.reset(outputs * digits_ * kGroupRows);
      residual_scale_.reset(outputs);
      row_sums_.reset(outputs * digits_ * kTileRows);
      sums_.reset(outputs * digits_ * stride_);
    }
  }

  bool integer() const { return arithmetic_ != Arithmetic::kFloat; }

  // Takes a model; `batch` names the draws that round it.
  void set_model(const float* model, const float* intercept, uint64_t batch) {
    for (size_t k = 0; k < outputs_; ++k) {
      const float* w = model + k * affine_.columns;
      float* factor = factor_.data() + k * stride_;
      for (size_t j = 0; j < affine_.columns; ++j) factor[j] = affine_.slope[j] * w[j];
      if (integer()) round_model(k, batch);
      DoubleLanes linear{}, centre{};
      for (size_t j = 0; j < affine_.columns; j += 8) {  // all are zero beyond the columns
        for (size_t l = 0; l < 8; ++l) linear.lane[l] += static_cast<double>(factor[j + l]) * per_code_[j + l];
      }
      for (size_t j = 0; centred_ && j < affine_.columns; j += 8) {
        for (size_t l = 0; l < 8; ++l) {
          centre.lane[l] += static_cast<double>(factor[j + l]) * per_code_[stride_ + j + l];
        }
      }
      double lin = lane_sum(linear), con = intercept[k] - lane_sum(centre);
      for (size_t j = 0; flat_ && j < affine_.columns; ++j) {
        if (affine_.slope[j] != 0) continue;
        lin += static_cast<double>(affine_.offset[j]) * w[j];
        con -= static_cast<double>(affine_.centre[j]) * w[j];
      }
      linear_[k] = static_cast<float>(lin);
      constant_[k] = static_cast<float>(con);
    }
  }

  // Sums of factor * code of all outputs for the 64 rows of a tile; output k's go to out + k * stride.
  // Of the packed tile `ahead`, if there is one, the first or the second half is fetched meanwhile.
  void code_margins(const Plane* planes, int count, float* out, size_t stride, const uint8_t* ahead = nullptr,
                    size_t half = 0) {
    if (!integer()) return float_margins(planes, count, out, stride);
    for (int p = 0; p < count; ++p) {
      const size_t plane_bytes = 8 * static_cast<size_t>(planes[p].width) * affine_.columns;
      // Bytes of many columns are runs so long that the hardware fetches them by itself; at half their pace
      // it is only held up.
      const bool long_runs = planes[p].width == 8 && affine_.columns > kLongRun;
      const uint8_t* next = long_runs ? planes[p].digits : plane_ahead(planes, p, ahead);
      rows_of(planes[p], next + (next == planes[p].digits ? 0 : half * plane_bytes / 2));
      for (size_t k = 0; k < outputs_; ++k) {
        float unit = scale_[k] * static_cast<float>(1 << planes[p].shift);
        for (size_t digit = 0; digit < digits_; ++digit) {
          const int32_t* sums = row_sums_.data() + (k * digits_ + digit) * kTileRows;
          float* to = out + k * stride;
          for (size_t r = 0; r < 64; r += 16) {
            const F16 part = to_float(load<I16>(sums + r)) * splat(unit);
            store(to + r, p + digit ? load<F16>(to + r) + part : part);
          }
          unit *= static_cast<float>(form_.radix());
        }
      }
    }
  }

  // Margins from sums over codes.
  ZIPML_INLINE void finish_margins(const TileView& tile, size_t k, float out[64]) const {
    const float linear = linear_[k], constant = constant_[k];
    if (!tile.chunk->row_scale) {
      const float both = linear + constant;
      for (size_t r = 0; r < 64; r += 16) store(out + r, load<F16>(out + r) + splat(both));
    } else {
      for (size_t r = 0; r < tile.rows; ++r) out[r] = tile.scale(r) * (out[r] + linear) + constant;
    }
  }

  // Sums over the columns of what codes of output k meet, and of its magnitudes.
  void factor_sums(size_t k, double* sum, double* size) const {
    const float* factor = factor_.data() + k * stride_;
    DoubleLanes plain{}, large{};
    for (size_t j = 0; j < affine_.columns; j += 8) {  // all are zero beyond the columns
      for (size_t l = 0; l < 8; ++l) {
        const double f = factor[j + l];
        plain.lane[l] += f;
        large.lane[l] += f < 0 ? -f : f;
      }
    }
    *sum = lane_sum(plain);
    *size = lane_sum(large);
  }
  double linear(size_t k) const { return linear_[k]; }
  double constant(size_t k) const { return constant_[k]; }

  // Rounds the residuals of a group of tiles for output k to digits and back: `residuals` (64 a tile,
  // zero beyond the rows) become what the codes are multiplied by. `index` names the draws.
  void round_residuals(const TileView* tiles, size_t count, size_t k, uint32_t index, float* residuals) {
    if (!integer()) return;
    residual_scale_[k] = step_of(residuals, 64 * count);
    uint64_t ids[kGroupTiles] = {};
    uint32_t indices[kGroupTiles];
    for (size_t t = 0; t < kGroupTiles; ++t) {
      ids[t] = t < count ? tiles[t].id : 0;
      indices[t] = index;
    }
    alignas(64) uint16_t draws[kGroupTiles][64];
    count == 1 ? rounding_draws<1>(key_, Purpose::kResidual, ids, indices, draw_, draws)
               : rounding_draws<kGroupTiles>(key_, Purpose::kResidual, ids, indices, draw_, draws);
    int8_t* low = residual_digits_.data() + k * digits_ * kGroupRows;
    for (size_t t = 0; t < count; ++t) {
      int8_t* digits[2] = {low + 64 * t, low + kGroupRows + 64 * t};
      round_block(residuals + 64 * t, residual_scale_[k], form_, draws[t], digits);
    }
  }

  // Adds to out[k * out_stride + j] the sum over the group's rows of residual * code, times `weight`,
  // for every output; output k's residuals are at residuals + k * stride. `ahead` are the packed
  // tiles that come next, or null.
  void add_code_gradient(const TileView* tiles, size_t count, bool first, const float* residuals, size_t stride,
                         float weight, const uint8_t* const* ahead, float* out, size_t out_stride) {
    if (!integer()) {
      for (size_t t = 0; t < count; ++t) {
        float_gradient(first ? tiles[t].first : tiles[t].planes, tiles[t].count, residuals + 64 * t, stride, weight,
                       out, out_stride);
      }
      return;
    }
    for (int p = 0; p < tiles[0].count; ++p) {
      const uint8_t *at[kGroupTiles], *next[kGroupTiles];
      for (size_t t = 0; t < count; ++t) {
        const Plane* planes = first ? tiles[t].first : tiles[t].planes;
        at[t] = planes[p].digits;
        next[t] = plane_ahead(planes, p, ahead ? ahead[t] : nullptr);
      }
      const Plane& plane = tiles[0].planes[p];
      columns_of(plane, at, next, count);
      for (size_t k = 0; k < outputs_; ++k) {
        float unit = weight * residual_scale_[k] * static_cast<float>(1 << plane.shift);
        for (size_t digit = 0; digit < digits_; ++digit) {
          add_sums(sums_.data() + (k * digits_ + digit) * stride_, unit, out + k * out_stride);
          unit *= static_cast<float>(form_.radix());
        }
      }
    }
  }

 private:
  // Where plane p of a packed tile lies, or what is in the cache anyway: if there is no tile to fetch, or
  // if planes are entries of tables, of which only the first stands for packed codes.
  const uint8_t* plane_ahead(const Plane* planes, int p, const uint8_t* ahead) const {
    if (!ahead || (p && affine_.tables[0] && !planes[0].tables)) return planes[p].digits;
    return ahead + (planes[p].digits - planes[0].digits);
  }

  float step_of(const float* values, size_t size) const {
    const float most = largest_magnitude(values, size);
    const float step = most / static_cast<float>(form_.largest());
    return step > 0 && !(1.0f / step > 3e38f) ? step : most - most;  // 0, or NaN for what is not finite
  }

  void round_model(size_t k, uint64_t batch) {
    float* factor = factor_.data() + k * stride_;
    int8_t* low = entries_.data() + k * digits_ * stride_;
    int8_t* high = low + stride_;
    const size_t blocks = (affine_.columns + 63) / 64;
    scale_[k] = step_of(factor, affine_.columns);
    for (size_t b = 0; b < blocks; b += 4) {
      const uint64_t ids[4] = {batch, batch, batch, batch};
      uint32_t indices[4];
      for (size_t i = 0; i < 4; ++i) indices[i] = static_cast<uint32_t>(k * blocks + b + i);
      alignas(64) uint16_t draws[4][64];
      const size_t count = least<size_t>(4, blocks - b);
      count == 1 ? rounding_draws<1>(key_, Purpose::kModel, ids, indices, draw_, draws)
                 : rounding_draws<4>(key_, Purpose::kModel, ids, indices, draw_, draws);
      for (size_t i = 0; i < count; ++i) {
        int8_t* digits[2] = {low + 64 * (b + i), high + 64 * (b + i)};
        round_block(factor + 64 * (b + i), scale_[k], form_, draws[i], digits);
      }
    }
  }

  void add_sums(const int32_t* sums, float unit, float* out) const {
    size_t j = 0;
    for (; j + 16 <= affine_.columns; j += 16) {
      store(out + j, load<F16>(out + j) + to_float(load<I16>(sums + j)) * splat(unit));
    }
    for (; j < affine_.columns; ++j) out[j] += static_cast<float>(sums[j]) * unit;
  }

  // Products of a plane with all digits of all outputs, to row_sums_.
  template <class Source>
  void byte_rows_of(const Source& source, const uint8_t* ahead) {
    byte_rows(source, affine_.columns, entries_.data(), outputs_ * digits_, stride_, row_sums_.data(), ahead);
  }
  template <int W>
  void field_rows(const Plane& p, const uint8_t* ahead) {
    if (p.tables) return byte_rows_of(LookedUp<W>{p.digits, p.tables}, ahead);
    dot_rows<W>(p.digits, affine_.columns, entries_.data(), outputs_ * digits_, stride_, row_sums_.data(), ahead);
  }
  ZIPML_INLINE void rows_of(const Plane& p, const uint8_t* ahead) {
    switch (p.width) {
      case 8: return byte_rows_of(Stored{p.digits}, ahead);
      case 4: return field_rows<4>(p, ahead);
      case 2: return field_rows<2>(p, ahead);
      default: return field_rows<1>(p, ahead);
    }
  }

  // Products of a plane of some tiles with all digits of all outputs' residuals, to sums_.
  template <class Source>
  void byte_columns_of(const Source* tiles, const uint8_t* const* next, size_t count) {
    byte_columns(tiles, next, count, affine_.columns, residual_digits_.data(), outputs_ * digits_, kGroupRows,
                 sums_.data(), stride_);
  }
  template <int W>
  void field_columns(const Plane& p, const uint8_t* const* at, const uint8_t* const* next, size_t count) {
    if (!p.tables) {
      return dot_columns<W>(at, next, count, affine_.columns, residual_digits_.data(), outputs_ * digits_,
                            kGroupRows, sums_.data(), stride_);
    }
    LookedUp<W> tiles[kGroupTiles];
    for (size_t t = 0; t < count; ++t) tiles[t] = {at[t], p.tables};
    byte_columns_of(tiles, next, count);
  }
  ZIPML_INLINE void columns_of(const Plane& p, const uint8_t* const* at, const uint8_t* const* next, size_t count) {
    Stored tiles[kGroupTiles];
    for (size_t t = 0; t < count; ++t) tiles[t] = {at[t]};
    switch (p.width) {
      case 8: return byte_columns_of(tiles, next, count);
      case 4: return field_columns<4>(p, at, next, count);
      case 2: return field_columns<2>(p, at, next, count);
      default: return field_columns<1>(p, at, next, count);
    }
  }

  // One plane of a known width has no loop over planes and no shift that is not constant.
  template <int Width, class F>
  ZIPML_INLINE void each_column(const Plane* planes, int count, F&& f) const {
    for (size_t j = 0; j < affine_.columns; ++j) {
      const Plane one = {planes[0].digits, Width, 0, nullptr};
      const auto codes = [&](int block) __attribute__((always_inline)) {
        return Width ? row_codes(&one, 1, j, block) : row_codes(planes, count, j, block);
      };
      f(j, codes);
    }
  }
  template <class F>
  ZIPML_INLINE void every_column(const Plane* planes, int count, F&& f) const {
    if (count > 1) return each_column<0>(planes, count, f);
    switch (planes[0].width) {
      case 8: return each_column<8>(planes, 1, f);
      case 4: return each_column<4>(planes, 1, f);
      case 2: return each_column<2>(planes, 1, f);
      default: return each_column<1>(planes, 1, f);
    }
  }

  // Outputs share the codes, as many at a time as the registers hold sums of.
  void float_margins(const Plane* planes, int count, float* out, size_t stride) const {
    size_t k = 0;
    for (; k + kSharing <= outputs_; k += kSharing) shared_margins(planes, count, k, out + k * stride, stride);
    for (; k < outputs_; ++k) {
      const float* factor = factor_.data() + k * stride_;
      F16 sum[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
      every_column(planes, count, [&](size_t j, const auto& codes) __attribute__((always_inline)) {
        const F16 f = splat(factor[j]);
#pragma GCC unroll 4
        for (int b = 0; b < 4; ++b) sum[b] += to_float(codes(b)) * f;
      });
      for (int b = 0; b < 4; ++b) store(out + k * stride + 16 * b, sum[b]);
    }
  }

  void shared_margins(const Plane* planes, int count, size_t first, float* out, size_t stride) const {
    const float* factor = factor_.data() + first * stride_;
    for (int b = 0; b < 4; ++b) {
      F16 sum[kSharing] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
      every_column(planes, count, [&](size_t j, const auto& codes) __attribute__((always_inline)) {
        const F16 c = to_float(codes(b));
#pragma GCC unroll 4
        for (size_t n = 0; n < kSharing; ++n) sum[n] += c * splat(factor[n * stride_ + j]);
      });
      for (size_t n = 0; n < kSharing; ++n) store(out + n * stride + 16 * b, sum[n]);
    }
  }

  void float_gradient(const Plane* planes, int count, const float* residuals, size_t stride, float weight,
                      float* out, size_t out_stride) const {
    if (outputs_ == 1) {
      F16 r[4];
      for (int b = 0; b < 4; ++b) r[b] = load<F16>(residuals + 16 * b) * splat(weight);
      every_column(planes, count, [&](size_t j, const auto& codes) __attribute__((always_inline)) {
        F16 sum = to_float(codes(0)) * r[0];
#pragma GCC unroll 4
        for (int b = 1; b < 4; ++b) sum += to_float(codes(b)) * r[b];
        out[j] += lane_sum(sum);
      });
      return;
    }
    every_column(planes, count, [&](size_t j, const auto& codes) __attribute__((always_inline)) {
      F16 c[4];
#pragma GCC unroll 4
      for (int b = 0; b < 4; ++b) c[b] = to_float(codes(b));
      for (size_t k = 0; k < outputs_; ++k) {
        const float* r = residuals + k * stride;
        F16 sum = c[0] * (load<F16>(r) * splat(weight));
#pragma GCC unroll 4
        for (int b = 1; b < 4; ++b) sum += c[b] * (load<F16>(r + 16 * b) * splat(weight));
        out[k * out_stride + j] += lane_sum(sum);
      }
    });
  }

  static constexpr size_t kGroupRows = kGroupTiles * kTileRows;
  static constexpr size_t kSharing = 4;  // outputs that share the codes of a margin
  static constexpr size_t kLongRun = 256;  // columns

  Affine affine_;
  Arithmetic arithmetic_;
  size_t outputs_;
  PhiloxKey key_;
  uint32_t draw_;
  size_t stride_;
  DigitForm form_;
  bool flat_ = false, centred_ = false;
  Buffer<float> factor_;    // outputs x stride; rounded ones in their place
  Buffer<float> linear_, constant_, scale_;
  Buffer<float> per_code_;  // offset / slope, centre / slope
  size_t digits_ = 1;
  Buffer<int8_t> entries_;          // outputs x digits x stride
  Buffer<int8_t> residual_digits_;  // outputs x digits x rows of a group
  Buffer<float> residual_scale_;
  Buffer<int32_t> row_sums_, sums_;  // outputs x digits x 64, x stride
};

}  // namespace ZIPML_ISA
}  // namespace zipml
