// Encoding of a whole matrix, tile by tile: values are gathered into blocks of kLanes columns, rounded
// by a `Rounding` (uniform levels or level tables), and packed.
#pragma once

#include <type_traits>

#include "encode_block.hpp"
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

// One row of a block, converted.
template <class In, class T>
ZIPML_INLINE void convert_lanes(const In* from, T* to) {
  for (size_t i = 0; i < kLanes; ++i) to[i] = as_working(from[i]);
}
#if defined(__AVX2__)
ZIPML_INLINE void convert_lanes(const RawHalf* from, float* to) {
  for (size_t i = 0; i < kLanes; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(halves));
  }
}
#endif

// Four rows of a block from kLanes columns that are contiguous.
ZIPML_INLINE void turn_lanes(const float* from, ptrdiff_t column_stride, float* to) {
  Words four[4];  // rows of the columns i, 4 + i, 8 + i, 12 + i
#pragma GCC unroll 4
  for (ptrdiff_t i = 0; i < 4; ++i) {
    const auto part = [&](ptrdiff_t c) { return from + (c + i) * column_stride; };
#if defined(__AVX512BW__)
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(part(0)));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(part(4)), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(part(8)), 2);
    four[i] = (Words)_mm512_insertf32x4(v, _mm_loadu_ps(part(12)), 3);
#elif defined(__AVX2__)
    const __m256 v = _mm256_castps128_ps256(_mm_loadu_ps(part(0)));
    four[i] = (Words)_mm256_insertf128_ps(v, _mm_loadu_ps(part(4)), 1);
#else
    four[i] = load_as<Words>(part(0));
#endif
  }
  const Words a = low_pair(four[0], four[1]), b = low_pair(four[2], four[3]);
  const Words c = high_pair(four[0], four[1]), d = high_pair(four[2], four[3]);
  const Words rows[4] = {low_four(a, b), high_four(a, b), low_four(c, d), high_four(c, d)};
  std::memcpy(to, rows, sizeof rows);
}

template <class T>
using Block = T[kTileRows][kLanes];

// Copies `columns` columns of a tile into a block of whole rows, from lane `lane` on.
template <class In, class T>
ZIPML_INLINE void gather(Matrix<const In> values, size_t row, size_t rows, size_t column,
                         size_t columns, Block<T>& block, size_t lane) {
  const In* from = values.data + static_cast<ptrdiff_t>(row) * values.row_stride +
                   static_cast<ptrdiff_t>(column) * values.column_stride;
  if (values.column_stride == 1 && columns == kLanes) {
    for (size_t r = 0; r < rows; ++r, from += values.row_stride) convert_lanes(from, block[r]);
  } else if (values.row_stride == 1) {
    size_t done = 0;  // rows
    if constexpr (std::is_same_v<In, float>) {
      if (columns == kLanes) {
        for (; done + 4 <= rows; done += 4) turn_lanes(from + done, values.column_stride, block[done]);
      }
    }
    for (size_t c = 0; c < columns; ++c, from += values.column_stride) {
      // The same column of the next block.
      const In* next = from + static_cast<ptrdiff_t>(kLanes) * values.column_stride;
      for (size_t i = 0; i < kTileRows; i += 64 / sizeof(In)) prefetch(next + i);
      for (size_t r = done; r < rows; ++r) block[r][lane + c] = as_working(from[r]);
    }
  } else {
    for (size_t r = 0; r < rows; ++r, from += values.row_stride) {
      const In* at = from;
      for (size_t c = 0; c < columns; ++c, at += values.column_stride) block[r][lane + c] = as_working(*at);
    }
  }
}

// What a rounding sees of the samples: four and eight come one by one.
ZIPML_INLINE CodeSpec at_once(CodeSpec spec) { return {spec.bits, spec.samples <= 2 ? spec.samples : 1}; }

// A `Rounding` has
//   Sum: what a column's variances add up to; kByRow: whether rows may have scales of their own
//   fill(count), repeat_last(count, width): see GridTable
//   filler(column): a value that may stand where a tile has none
//   round(from, stride, ahead, ahead_stride, first, words, lanes, sums, row_sums): rounds `words`,
//     from draws to codes, where `first` is the number of the first column (or row), and says
//     whether all values lie within their bounds
template <class In, class T, class Rounding>
struct Encoder {
  using Sum = typename Rounding::Sum;

  const Matrix<const In> values;
  const CodeSpec spec;
  const bool by_row;
  const RoundKeys keys;
  const uint64_t first_tile;
  uint8_t* const codes;
  Sum* const variance;
  double* const row_variance;
  Rounding& rounding;
  bool within = true;
  alignas(64) Block<T> block = {};
  alignas(64) Words words[32];

  ZIPML_INLINE uint8_t* tile_codes(size_t t) const {
    return codes + tile_offset(t, values.columns, spec.stored_bits());
  }

  ZIPML_INLINE void round(const T* from, ptrdiff_t stride, const In* ahead, ptrdiff_t ahead_stride,
                          size_t first, size_t lanes, Sum* sums, double* row_sums) {
    within &= rounding.round(from, stride, reinterpret_cast<const char*>(ahead),
                             ahead_stride * static_cast<ptrdiff_t>(sizeof(In)), first, words, lanes, sums,
                             row_sums);
  }

  // The counter word of the draws of a sample, for the first block.
  static ZIPML_INLINE uint64_t draws_of(int sample) {
    return static_cast<uint64_t>(Purpose::kQuantize) << 24 | static_cast<uint64_t>(sample) << 8;
  }

  // Rounds by the draws that draw(last) puts into `words`. Four and eight samples are rounded one after
  // the other, each by draws of its own, and their codes added up: `rounding` takes one at a time.
  template <class Draw>
  ZIPML_INLINE void round_all(Draw&& draw, const T* from, ptrdiff_t stride, const In* ahead, ptrdiff_t ahead_stride,
                              size_t first, size_t lanes, Sum* sums, double* row_sums) {
    alignas(64) Words total[32] = {};
    for (int sample = 0; sample < spec.samples; ++sample) {
      draw(draws_of(sample));
      round(from, stride, ahead, ahead_stride, first, lanes, sample ? nullptr : sums, sample ? nullptr : row_sums);
      if (spec.samples <= 2) return;
      // Two codes a word, and anything beyond their bits.
      const Words mask = Words{} + static_cast<uint32_t>(spec.intervals()) * 0x10001u;
      for (size_t w = 0; w < 32; ++w) total[w] += words[w] & mask;
    }
    std::memcpy(words, total, sizeof total);
  }

  // Up to kLanes columns of one tile, from column `c0` on.
  ZIPML_INLINE void encode_block(size_t t, size_t c0) {
    const size_t rows = rows_in_tile(values.rows, t), columns = values.columns;
    const size_t width = least(kLanes, columns - c0);
    const In* tile = values.data + static_cast<ptrdiff_t>(t * kTileRows) * values.row_stride;
    const T* from = width == kLanes && rows == kTileRows
                        ? in_place<T>(tile + c0, values.column_stride) : nullptr;
    ptrdiff_t stride = values.row_stride;
    const In* next_tile = tile + static_cast<ptrdiff_t>(kTileRows) * stride;
    const In* ahead = c0 + 2 * kLanes <= columns ? tile + c0 + kLanes : next_tile;
    if (!from) {
      for (size_t r = width < kLanes ? 0 : rows; r < kTileRows; ++r) {
        for (size_t c = 0; c < kLanes; ++c) block[r][c] = by_row ? T(0) : rounding.filler(c0 + c);
      }
      gather(values, t * kTileRows, rows, c0, width, block, 0);
      from = block[0];
      stride = kLanes;
    }
    const bool dense = values.column_stride == 1;  // else gather looks ahead
    const auto draw = [&](uint64_t last) __attribute__((always_inline)) {
      draw_tile(keys, first_tile + t, static_cast<uint32_t>(c0), words, last);
    };
    round_all(draw, from, stride, dense ? ahead : tile, dense ? values.row_stride : 0, by_row ? t * kTileRows : c0, width,
          variance ? variance + c0 : nullptr, row_variance ? row_variance + c0 : nullptr);
    if (rows == kTileRows) {
      pack_block(words, spec.stored_bits(), columns, c0, width, tile_codes(t));
    } else {
      pack_ragged_block(words, rows, spec.stored_bits(), columns, c0, width, tile_codes(t));
    }
  }

  // The last few columns, from `c0` on, of `count` whole tiles side by side: alone they would leave
  // most lanes empty. `first` is the number of their repeated entries.
  ZIPML_INLINE void encode_side_by_side(size_t t, size_t count, size_t c0, size_t first) {
    const size_t width = values.columns - c0, lanes = count * width;
    alignas(64) uint64_t tiles[kLanes] = {};
    alignas(64) Sum sums[kLanes] = {};
    alignas(64) uint32_t columns[kLanes] = {};
    for (size_t lane = 0; lane < lanes; ++lane) {
      tiles[lane] = first_tile + t + lane / width;
      columns[lane] = static_cast<uint32_t>(c0 + lane % width);
    }
    for (size_t r = 0; r < kTileRows; ++r) {
      for (size_t lane = lanes; lane < kLanes; ++lane) block[r][lane] = rounding.filler(first + lane);
    }
    for (size_t i = 0; i < count; ++i) {
      gather(values, (t + i) * kTileRows, kTileRows, c0, width, block, i * width);
    }
    const auto draw = [&](uint64_t last) __attribute__((always_inline)) {
      draw_lanes(keys, tiles, columns, words, last);
    };
    round_all(draw, block[0], kLanes, values.data, 0, first, lanes, sums, nullptr);
    for (size_t lane = 0; variance && lane < lanes; ++lane) variance[c0 + lane % width] += sums[lane];
    pack_side_by_side(words, spec.stored_bits(), values.columns, c0, count, tile_codes(t),
                      tile_offset(1, values.columns, spec.stored_bits()));
  }

  ZIPML_INLINE bool run() {
    const size_t columns = values.columns, whole = values.rows / kTileRows;
    rounding.fill(by_row ? values.rows : columns);
    if (variance) std::memset(static_cast<void*>(variance), 0, columns * sizeof(Sum));
    if (row_variance) std::memset(row_variance, 0, columns * sizeof(double));
    const size_t rest = columns % kLanes;
    const size_t together = rest && !by_row ? kLanes / rest : 1;
    const size_t repeated = together > 1 ? rounding.repeat_last(columns, rest) : 0;
    size_t waiting = 0;  // tiles whose last columns are not encoded yet
    for (size_t t = 0; t < tile_count(values.rows); ++t) {
      const bool wait = together > 1 && t < whole;
      for (size_t c0 = 0; c0 < columns - (wait ? rest : 0); c0 += kLanes) encode_block(t, c0);
      waiting += wait;
      if (waiting == together || (waiting && t + 1 == whole)) {
        encode_side_by_side(t + 1 - waiting, waiting, columns - rest, repeated);
        waiting = 0;
      }
    }
    return within;
  }
};

}  // namespace
}  // namespace ZIPML_ISA
}  // namespace zipml
