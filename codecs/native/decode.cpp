// Unpacking of one chunk, or of some of its tiles, to floating point.

#include "native.hpp"
#include "grid.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

constexpr size_t kColumnBlock = 16;

// Value of a stored code: a level, or the mean of two samples that share a base. Codes beyond the
// last level (a corrupted chunk) read as the last level.
template <class T, class Round>
ZIPML_INLINE T stored_value(const Grid<T, Round>& grid, int32_t code, int samples) {
  if (samples == 1) return grid.level(code);
  const int32_t low = code >> 1, high = code - low;
  if (low == high) return grid.level(low);
  const T mean = (grid.scaled_level(low) + grid.scaled_level(high)) * T(0.5);
  return Round::level(mean / grid.factor);
}

template <class T, class Round>
ZIPML_INLINE void decode_any(const uint8_t* codes, size_t chunk_rows, size_t first_tile,
                             Scales<T> scales, CodeSpec spec, Matrix<T> out) {
  const int stored = spec.stored_bits();
  const int32_t top = spec.intervals() * spec.samples;
  // Column scales: one table of all values a column can take, unless the chunk is too short to
  // pay for it.
  const bool tabled = !scales.by_row && out.rows > static_cast<size_t>(top);
  Buffer<T> tables;
  if (tabled) {
    tables.reset(out.columns * static_cast<size_t>(top + 1));
    for (size_t c = 0; c < out.columns; ++c) {
      const Grid<T, Round> grid(scales.lower[c], scales.upper[c], spec.intervals());
      T* table = tables.data() + c * static_cast<size_t>(top + 1);
      for (int32_t z = 0; z <= top; ++z) table[z] = stored_value(grid, z, spec.samples);
    }
  }
  T block[kColumnBlock][kTileRows];
  for (size_t t = 0; t < tile_count(out.rows); ++t) {
    const size_t rows = rows_in_tile(out.rows, t);
    const size_t slots = slots_in_tile(rows_in_tile(chunk_rows, first_tile + t));
    const uint8_t* tile = codes + tile_offset(first_tile + t, out.columns, stored);
    for (size_t c0 = 0; c0 < out.columns; c0 += kColumnBlock) {
      const size_t width = least(kColumnBlock, out.columns - c0);
      for (size_t c = 0; c < width; ++c) {
        alignas(64) uint16_t z[64];
        unpack_column(tile, slots, stored, out.columns, c0 + c, z);
        if (tabled) {
          const T* table = tables.data() + (c0 + c) * static_cast<size_t>(top + 1);
          for (size_t r = 0; r < rows; ++r) block[c][r] = table[least<int32_t>(z[r], top)];
        } else if (scales.by_row) {
          for (size_t r = 0; r < rows; ++r) {
            const T s = scales.upper[t * kTileRows + r];
            const Grid<T, Round> grid(T(0) - s, s, spec.intervals());
            block[c][r] = stored_value(grid, least<int32_t>(z[r], top), spec.samples);
          }
        } else {
          const Grid<T, Round> grid(scales.lower[c0 + c], scales.upper[c0 + c], spec.intervals());
          for (size_t r = 0; r < rows; ++r) {
            block[c][r] = stored_value(grid, least<int32_t>(z[r], top), spec.samples);
          }
        }
      }
      for (size_t r = 0; r < rows; ++r) {
        T* row = out.data + static_cast<ptrdiff_t>(t * kTileRows + r) * out.row_stride +
                 static_cast<ptrdiff_t>(c0) * out.column_stride;
        for (size_t c = 0; c < width; ++c) {
          row[static_cast<ptrdiff_t>(c) * out.column_stride] = block[c][r];
        }
      }
    }
  }
}

}  // namespace

void decode_float(const uint8_t* codes, size_t rows, size_t tile, Scales<float> s,
                               CodeSpec c, Matrix<float> out) {
  decode_any<float, Keep>(codes, rows, tile, s, c, out);
}
void decode_half(const uint8_t* codes, size_t rows, size_t tile, Scales<float> s,
                              CodeSpec c, Matrix<float> out) {
  decode_any<float, ToHalf>(codes, rows, tile, s, c, out);
}
void decode_double(const uint8_t* codes, size_t rows, size_t tile, Scales<double> s,
                                CodeSpec c, Matrix<double> out) {
  decode_any<double, Keep>(codes, rows, tile, s, c, out);
}

}  // namespace ZIPML_ISA
}  // namespace zipml
