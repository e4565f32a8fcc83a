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
        form_(DigitForm::of(arithmetic, affine.tables[0] || affine.stored_bits >= 8 ? 8 : 4)) {
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
      entries_.reset(outputs * 2 * stride_);
      scale_.reset(outputs);
      sums_.reset(stride_);
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

  // Sums of factor * code of output k for the 64 rows of a tile.
  ZIPML_INLINE void code_margins(const Plane* planes, int count, size_t k, float out[64]) {
    if (!integer()) return float_margins(planes, count, factor_.data() + k * stride_, out);
    alignas(64) int32_t sums[64];
    bool begun = false;
    float radix = 1.0f;
    for (int digit = 0; digit < form_.digits; ++digit) {
      const int8_t* entries = entries_.data() + (2 * k + static_cast<size_t>(digit)) * stride_;
      for (int p = 0; p < count; ++p) {
        rows_of(planes[p], affine_.columns, entries, sums);
        const float unit = scale_[k] * radix * static_cast<float>(1 << planes[p].shift);
        for (size_t r = 0; r < 64; r += 16) {
          const F16 part = to_float(load<I16>(sums + r)) * splat(unit);
          store(out + r, begun ? load<F16>(out + r) + part : part);
        }
        begun = true;
      }
      radix = static_cast<float>(form_.radix());
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

  // Rounds the residuals of a group of tiles to digits and back: `residuals` (64 a tile, zero
  // beyond the rows) become what the codes are multiplied by. `index` names the draws.
  void round_residuals(const TileView* tiles, size_t count, uint32_t index, float* residuals) {
    if (!integer()) return;
    residual_scale_ = step_of(residuals, 64 * count);
    uint64_t ids[kGroupTiles] = {};
    uint32_t indices[kGroupTiles];
    for (size_t t = 0; t < kGroupTiles; ++t) {
      ids[t] = t < count ? tiles[t].id : 0;
      indices[t] = index;
    }
    alignas(64) uint16_t draws[kGroupTiles][64];
    count == 1 ? rounding_draws<1>(key_, Purpose::kResidual, ids, indices, draw_, draws)
               : rounding_draws<kGroupTiles>(key_, Purpose::kResidual, ids, indices, draw_, draws);
    for (size_t t = 0; t < count; ++t) {
      int8_t* digits[2] = {digits_[0] + 64 * t, digits_[1] + 64 * t};
      round_block(residuals + 64 * t, residual_scale_, form_, draws[t], digits);
    }
  }

  // Adds to out[j] the sum over the group's rows of residual * code, times `weight`.
  // `ahead` are the packed tiles that come next, or null.
  void add_code_gradient(const TileView* tiles, size_t count, bool first, const float* residuals,
                         float weight, const uint8_t* const* ahead, float* out) {
    if (!integer()) {
      for (size_t t = 0; t < count; ++t) {
        float_gradient(first ? tiles[t].first : tiles[t].planes, tiles[t].count, residuals + 64 * t, weight, out);
      }
      return;
    }
    float radix = 1.0f;
    for (int digit = 0; digit < form_.digits; ++digit) {
      for (int p = 0; p < tiles[0].count; ++p) {
        const uint8_t *at[kGroupTiles], *next[kGroupTiles];
        for (size_t t = 0; t < count; ++t) {
          const Plane* planes = first ? tiles[t].first : tiles[t].planes;
          at[t] = planes[p].digits;
          next[t] = ahead ? ahead[t] + (planes[p].digits - planes[0].digits) : at[t];
        }
        const Plane& plane = tiles[0].planes[p];
        columns_of(plane, at, next, count, digits_[digit]);
        const float unit = weight * residual_scale_ * radix * static_cast<float>(1 << plane.shift);
        size_t j = 0;
        for (; j + 16 <= affine_.columns; j += 16) {
          store(out + j, load<F16>(out + j) + to_float(load<I16>(sums_.data() + j)) * splat(unit));
        }
        for (; j < affine_.columns; ++j) out[j] += static_cast<float>(sums_[j]) * unit;
      }
      radix = static_cast<float>(form_.radix());
    }
  }

 private:
  float step_of(const float* values, size_t size) const {
    const float most = largest_magnitude(values, size);
    const float step = most / static_cast<float>(form_.largest());
    return step > 0 && !(1.0f / step > 3e38f) ? step : most - most;  // 0, or NaN for what is not finite
  }

  void round_model(size_t k, uint64_t batch) {
    float* factor = factor_.data() + k * stride_;
    int8_t* low = entries_.data() + 2 * k * stride_;
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

  static ZIPML_INLINE void rows_of(const Plane& p, size_t columns, const int8_t* entries, int32_t out[64]) {
    if (p.tables) {
      switch (p.width) {
        case 4: return byte_rows(LookedUp<4>{p.digits, p.tables}, columns, entries, out);
        case 2: return byte_rows(LookedUp<2>{p.digits, p.tables}, columns, entries, out);
        default: return byte_rows(LookedUp<1>{p.digits, p.tables}, columns, entries, out);
      }
    }
    switch (p.width) {
      case 8: return byte_rows(Stored{p.digits}, columns, entries, out);
      case 4: return dot_rows<4>(p.digits, columns, entries, out);
      case 2: return dot_rows<2>(p.digits, columns, entries, out);
      default: return dot_rows<1>(p.digits, columns, entries, out);
    }
  }

  template <int W>
  ZIPML_INLINE void looked_up_columns(const uint8_t* tables, const uint8_t* const* at,
                                      const uint8_t* const* next, size_t count, const int8_t* r) {
    LookedUp<W> tiles[kGroupTiles];
    for (size_t t = 0; t < count; ++t) tiles[t] = {at[t], tables};
    byte_columns(tiles, next, count, affine_.columns, r, sums_.data());
  }

  ZIPML_INLINE void columns_of(const Plane& plane, const uint8_t* const* at, const uint8_t* const* next,
                               size_t count, const int8_t* r) {
    if (plane.tables) {
      switch (plane.width) {
        case 4: return looked_up_columns<4>(plane.tables, at, next, count, r);
        case 2: return looked_up_columns<2>(plane.tables, at, next, count, r);
        default: return looked_up_columns<1>(plane.tables, at, next, count, r);
      }
    }
    Stored tiles[kGroupTiles];
    for (size_t t = 0; t < count; ++t) tiles[t] = {at[t]};
    switch (plane.width) {
      case 8: return byte_columns(tiles, next, count, affine_.columns, r, sums_.data());
      case 4: return dot_columns<4>(at, next, count, affine_.columns, r, sums_.data());
      case 2: return dot_columns<2>(at, next, count, affine_.columns, r, sums_.data());
      default: return dot_columns<1>(at, next, count, affine_.columns, r, sums_.data());
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

  void float_margins(const Plane* planes, int count, const float* factor, float out[64]) const {
    F16 sum[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
    every_column(planes, count, [&](size_t j, const auto& codes) __attribute__((always_inline)) {
      const F16 f = splat(factor[j]);
#pragma GCC unroll 4
      for (int b = 0; b < 4; ++b) sum[b] += to_float(codes(b)) * f;
    });
    for (int b = 0; b < 4; ++b) store(out + 16 * b, sum[b]);
  }

  void float_gradient(const Plane* planes, int count, const float* residuals, float weight, float* out) const {
    F16 r[4];
    for (int b = 0; b < 4; ++b) r[b] = load<F16>(residuals + 16 * b) * splat(weight);
    every_column(planes, count, [&](size_t j, const auto& codes) __attribute__((always_inline)) {
      F16 sum = to_float(codes(0)) * r[0];
#pragma GCC unroll 4
      for (int b = 1; b < 4; ++b) sum += to_float(codes(b)) * r[b];
      out[j] += lane_sum(sum);
    });
  }

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
  Buffer<int8_t> entries_;  // outputs x digits x stride
  Buffer<int32_t> sums_;
  float residual_scale_ = 0;
  alignas(64) int8_t digits_[2][64 * kGroupTiles] = {};
};

}  // namespace ZIPML_ISA
}  // namespace zipml
