// Stochastic quantisation and packing of one chunk.

#include "native.hpp"
#include "grid.hpp"
#include "philox.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

// Columns that are brought into cache together: a row-major tile is read by whole cache lines.
constexpr size_t kColumnBlock = 16;

ZIPML_INLINE uint16_t one_sample(int32_t position, uint16_t draw) {
  const int32_t p = position & 0xFFFF;
  return static_cast<uint16_t>((position >> 16) + (draw < p));
}

// The sum of two independent samples from one draw: P(2 up) = p^2 (to 2^-16), and the two
// thresholds add up to exactly 2 p, so that the mean stays unbiased to the last bit.
ZIPML_INLINE uint16_t two_samples(int32_t position, uint16_t draw) {
  const int32_t p = position & 0xFFFF;
  const int32_t both = static_cast<int32_t>((static_cast<uint32_t>(p) * static_cast<uint32_t>(p)) >> 16);
  const int32_t any = 2 * p - both;
  return static_cast<uint16_t>(2 * (position >> 16) + (draw < both) + (draw < any));
}

ZIPML_INLINE void round_column(const int32_t position[64], size_t rows, int samples,
                               const uint16_t draws[64], uint16_t codes[64]) {
  if (samples == 1) {
    for (size_t r = 0; r < 64; ++r) codes[r] = one_sample(position[r], draws[r]);
  } else {
    for (size_t r = 0; r < 64; ++r) codes[r] = two_samples(position[r], draws[r]);
  }
  for (size_t r = rows; r < 64; ++r) codes[r] = 0;
}

ZIPML_INLINE uint64_t variance_units(const int32_t position[64], size_t rows) {
  uint64_t sum = 0;
  for (size_t r = 0; r < rows; ++r) {
    const uint32_t p = static_cast<uint32_t>(position[r]) & 0xFFFFu;
    sum += p * (65536u - p);
  }
  return sum;
}

template <class T, class Round>
ZIPML_INLINE void encode_any(Matrix<const T> values, Scales<T> scales, CodeSpec spec,
                             uint64_t seed, uint64_t first_tile, uint8_t* codes,
                             uint64_t* variance, double* row_variance) {
  const int stored = spec.stored_bits();
  const PhiloxKey key(seed);
  const size_t grid_count = scales.by_row ? values.rows : values.columns;
  Buffer<Grid<T, Round>> grids(grid_count);
  for (size_t g = 0; g < grid_count; ++g) {
    const T upper = scales.upper[g];
    grids[g] = Grid<T, Round>(scales.by_row ? T(0) - upper : scales.lower[g], upper, spec.intervals());
  }
  if (variance) std::memset(variance, 0, values.columns * sizeof(uint64_t));
  if (row_variance) std::memset(row_variance, 0, values.columns * sizeof(double));

  T block[kColumnBlock][kTileRows] = {};
  for (size_t t = 0; t < tile_count(values.rows); ++t) {
    const size_t rows = rows_in_tile(values.rows, t);
    const size_t slots = slots_in_tile(rows);
    uint8_t* tile = codes + tile_offset(t, values.columns, stored);
    for (size_t c0 = 0; c0 < values.columns; c0 += kColumnBlock) {
      const size_t width = least(kColumnBlock, values.columns - c0);
      for (size_t r = 0; r < rows; ++r) {
        const T* row = values.data + static_cast<ptrdiff_t>(t * kTileRows + r) * values.row_stride +
                       static_cast<ptrdiff_t>(c0) * values.column_stride;
        for (size_t c = 0; c < width; ++c) {
          block[c][r] = row[static_cast<ptrdiff_t>(c) * values.column_stride];
        }
      }
      alignas(64) uint16_t draws[kColumnBlock][kTileRows];
      quantize_draws(key, first_tile + t, static_cast<uint32_t>(c0), draws);
      for (size_t c = 0; c < width; ++c) {
        alignas(64) int32_t position[64];
        alignas(64) uint16_t packed[64];
        if (scales.by_row) {
          const Grid<T, Round>* grid = grids.data() + t * kTileRows;
          double sum = 0;
          for (size_t r = 0; r < rows; ++r) {
            position[r] = grid[r].position(block[c][r]);
            const double p = (position[r] & 0xFFFF) * 0x1p-16;
            const double step = static_cast<double>(grid[r].step) / grid[r].factor;
            sum += p > 0 ? p * (1.0 - p) * step * step : 0.0;  // the step may be infinite
          }
          for (size_t r = rows; r < 64; ++r) position[r] = 0;
          if (row_variance) row_variance[c0 + c] += sum;
        } else {
          const Grid<T, Round> grid = grids[c0 + c];
          if (grid.factor == T(1)) {
            for (size_t r = 0; r < 64; ++r) position[r] = grid.template position<false>(block[c][r]);
          } else {
            for (size_t r = 0; r < 64; ++r) position[r] = grid.template position<true>(block[c][r]);
          }
          if (variance) variance[c0 + c] += variance_units(position, rows);
        }
        round_column(position, rows, spec.samples, draws[c], packed);
        pack_column(packed, slots, stored, values.columns, c0 + c, tile);
      }
    }
  }
}

}  // namespace

void encode_float(Matrix<const float> v, Scales<float> s, CodeSpec c, uint64_t seed,
                               uint64_t tile, uint8_t* out, uint64_t* var, double* row_var) {
  encode_any<float, Keep>(v, s, c, seed, tile, out, var, row_var);
}
void encode_half(Matrix<const float> v, Scales<float> s, CodeSpec c, uint64_t seed,
                              uint64_t tile, uint8_t* out, uint64_t* var, double* row_var) {
  encode_any<float, ToHalf>(v, s, c, seed, tile, out, var, row_var);
}
void encode_double(Matrix<const double> v, Scales<double> s, CodeSpec c, uint64_t seed,
                                uint64_t tile, uint8_t* out, uint64_t* var, double* row_var) {
  encode_any<double, Keep>(v, s, c, seed, tile, out, var, row_var);
}

}  // namespace ZIPML_ISA
}  // namespace zipml
