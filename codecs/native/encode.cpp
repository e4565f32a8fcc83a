// Stochastic quantisation and packing of one chunk.

#include <type_traits>

#include "encode_block.hpp"
#include "native.hpp"
#include "pack_lanes.hpp"
#include "philox_lanes.hpp"
#include "working.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

// Where the rows of a block can be read as they lie, else null.
template <class T, class In>
ZIPML_INLINE const T* in_place(const In* values, ptrdiff_t column_stride) {
  if constexpr (std::is_same_v<T, In>) return column_stride == 1 ? values : nullptr;
  return nullptr;
}

// Copies a part of the matrix to a block of whole rows, in the type that the arithmetic takes.
template <class In, class T>
ZIPML_INLINE void gather(Matrix<const In> values, size_t row, size_t rows, size_t column,
                         size_t columns, T block[kTileRows][kLanes]) {
  const In* from = values.data + static_cast<ptrdiff_t>(row) * values.row_stride +
                   static_cast<ptrdiff_t>(column) * values.column_stride;
  if (values.column_stride == 1 && columns == kLanes) {
    for (size_t r = 0; r < rows; ++r, from += values.row_stride) {
      for (size_t c = 0; c < kLanes; ++c) block[r][c] = as_working(from[c]);
    }
  } else {
    for (size_t c = 0; c < columns; ++c, from += values.column_stride) {
      const In* at = from;
      for (size_t r = 0; r < rows; ++r, at += values.row_stride) block[r][c] = as_working(*at);
    }
  }
}

template <class In, class T, class Round>
ZIPML_INLINE bool encode_any(Matrix<const In> values, Scales<T> scales, CodeSpec spec, uint64_t seed,
                             uint64_t first_tile, uint8_t* codes, uint64_t* variance,
                             double* row_variance) {
  const int stored = spec.stored_bits();
  const size_t columns = values.columns;
  const RoundKeys keys(seed);
  GridTable<T> grids;
  grids.fill(scales, scales.by_row ? values.rows : columns, spec.intervals(), Round());
  if (variance) std::memset(variance, 0, columns * sizeof(uint64_t));
  if (row_variance) std::memset(row_variance, 0, columns * sizeof(double));

  alignas(64) T block[kTileRows][kLanes] = {};
  alignas(64) Words words[32];
  bool within = true;
  for (size_t t = 0; t < tile_count(values.rows); ++t) {
    const size_t rows = rows_in_tile(values.rows, t);
    uint8_t* tile = codes + tile_offset(t, columns, stored);
    const In* start = values.data + static_cast<ptrdiff_t>(t * kTileRows) * values.row_stride;
    const In* next_tile = start + static_cast<ptrdiff_t>(kTileRows) * values.row_stride;
    for (size_t c0 = 0; c0 < columns; c0 += kLanes) {
      const size_t width = least(kLanes, columns - c0);
      const T* from = width == kLanes && rows == kTileRows
                          ? in_place<T>(start + c0, values.column_stride) : nullptr;
      ptrdiff_t stride = values.row_stride;
      const void* ahead = c0 + 2 * kLanes <= columns ? start + c0 + kLanes : next_tile;
      if (!from) {
        gather(values, t * kTileRows, rows, c0, width, block);
        // What a tile lacks takes the lowest level, whose code is zero and does not vary.
        for (size_t r = rows; r < kTileRows; ++r) {
          for (size_t c = 0; c < kLanes; ++c) block[r][c] = scales.by_row ? T(0) : grids.lower[c0 + c];
        }
        for (size_t r = 0; r < rows; ++r) {
          for (size_t c = width; c < kLanes; ++c) block[r][c] = T(0);
        }
        from = block[0];
        stride = kLanes;
        ahead = from;
      }
      draw_tile(keys, first_tile + t, static_cast<uint32_t>(c0), words);
      const auto round = [&](auto careful, auto by_row) {
        constexpr bool kCareful = decltype(careful)::value, kByRow = decltype(by_row)::value;
        return round_block<T, Round, kCareful, kByRow>(
            from, stride, static_cast<const char*>(ahead), grids, kByRow ? t * kTileRows : c0,
            spec.samples, words, width, variance ? variance + c0 : nullptr,
            row_variance ? row_variance + c0 : nullptr);
      };
      if (scales.by_row) {
        const bool careful = grids.any_careful(t * kTileRows, kTileRows);
        within &= careful ? round(Yes(), Yes()) : round(No(), Yes());
      } else {
        within &= grids.any_careful(c0, kLanes) ? round(Yes(), No()) : round(No(), No());
      }
      if (rows == kTileRows) {
        pack_block(words, stored, columns, c0, width, tile);
      } else {
        pack_ragged_block(words, rows, stored, columns, c0, width, tile);
      }
    }
  }
  return within;
}

}  // namespace

bool encode_float(Matrix<const float> v, Scales<float> s, CodeSpec c, uint64_t seed, uint64_t tile,
                  uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<float, float, Keep>(v, s, c, seed, tile, out, var, row_var);
}
bool encode_float_to_half(Matrix<const float> v, Scales<float> s, CodeSpec c, uint64_t seed,
                          uint64_t tile, uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<float, float, ToHalf>(v, s, c, seed, tile, out, var, row_var);
}
bool encode_half(Matrix<const RawHalf> v, Scales<float> s, CodeSpec c, uint64_t seed, uint64_t tile,
                 uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<RawHalf, float, ToHalf>(v, s, c, seed, tile, out, var, row_var);
}
bool encode_byte(Matrix<const uint8_t> v, Scales<float> s, CodeSpec c, uint64_t seed, uint64_t tile,
                 uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<uint8_t, float, Keep>(v, s, c, seed, tile, out, var, row_var);
}
bool encode_double(Matrix<const double> v, Scales<double> s, CodeSpec c, uint64_t seed,
                   uint64_t tile, uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<double, double, Keep>(v, s, c, seed, tile, out, var, row_var);
}

}  // namespace ZIPML_ISA
}  // namespace zipml
