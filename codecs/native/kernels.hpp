// The kernels of one instruction set, and the choice among them at run time.
#pragma once

#include <string>
#include <vector>

#include "core.hpp"
#include "fixed_point.hpp"

namespace zipml {

template <class In, class T>
using Encode = bool(Matrix<const In> values, Scales<T> scales, CodeSpec spec, uint64_t seed,
                    uint64_t first_tile, uint8_t* codes, uint64_t* variance, double* row_variance);
template <class In, class T>
using EncodeTable = bool(Matrix<const In> values, Scales<T> scales, LevelTable table, CodeSpec spec,
                         uint64_t seed, uint64_t first_tile, uint8_t* codes, WideSum* variance);
template <class In, class T>
using Weave = bool(Matrix<const In> values, Scales<T> scales, WeaveSpec spec, uint64_t seed, uint64_t first_tile,
                   uint8_t* planes, uint64_t* variance);
template <class In, class T>
using ColumnBounds = bool(Matrix<const In> values, T* low, T* high);
template <class In, class T>
using RowMagnitudes = bool(Matrix<const In> values, T* largest);
template <class T, class Out = T>
using Decode = void(const uint8_t* codes, size_t chunk_rows, size_t first_tile, Scales<T> scales,
                    CodeSpec spec, bool stream, Matrix<Out> out);
template <class T, class Out = T>
using Take = void(const uint8_t* codes, size_t chunk_rows, const int64_t* rows, Scales<T> scales,
                  CodeSpec spec, Matrix<Out> out);

// A layer of the dynamic programme for levels (optimal_levels.hpp): for each row k the smallest of
// static_part[j] + position[k] by_row[j] + position[j] by_column[k] + row_part[k] over the columns
// j < k - 1, or before[k - 1] if that is not larger, goes to cost[k], and its column to from[k].
// The best column is taken to grow with the row. Arrays can be read kLevelPadding numbers past
// their end.
struct LevelLayer {
  const double *position, *static_part, *by_row, *by_column, *row_part, *before;
  double* cost;
  int32_t* from;
};
constexpr int64_t kLevelPadding = 16;

// Where values are counted: bins of each column, whose unit is a bin's width over 2^kLevelDigits.
// A packed bin holds the number of its values times kLevelOne, plus the sum of their offsets from
// its lower edge in units: it has room for kLevelRows values.
struct LevelCounters {
  const double *scale, *shift;  // value * scale - shift is in units, from the first bin's lower edge
  size_t bins;
  uint64_t* packed;  // columns x bins
  int64_t* zeros;    // values that are zero, of each column
};
constexpr int kLevelDigits = 27;
constexpr uint64_t kLevelRows = uint64_t{1} << 18;
constexpr uint64_t kLevelOne = uint64_t{1} << (18 + kLevelDigits);
template <class In>
using CountValues = void(Matrix<const In> values, const LevelCounters& counters);

struct Kernels {
  const char* name;

  // Quantises and packs. `variance` receives per column the sum over rows of p (2^16 - p), p the
  // probability of rounding up in units of 2^-16 (exact); for row scales, `row_variance` receives
  // the sum of p (2^16 - p) step^2 2^-32 in doubles instead. Returns false where a value is not a
  // number or lies outside of its bounds: what has been written then is to be thrown away.
  Encode<float, float>* encode_float;
  Encode<float, float>* encode_float_to_half;  // levels are halves, values need not be
  Encode<RawHalf, float>* encode_half;
  Encode<uint8_t, float>* encode_byte;
  Encode<double, double>* encode_double;

  // The same with level tables; the sums are those of p (2^16 - p) times the square of the distance
  // of the two levels in steps of the table's grid.
  EncodeTable<float, float>* encode_table_float;
  EncodeTable<float, float>* encode_table_float_to_half;
  EncodeTable<RawHalf, float>* encode_table_half;
  EncodeTable<uint8_t, float>* encode_table_byte;
  EncodeTable<double, double>* encode_table_double;

  // Quantises to bit planes: base planes, highest first, then sample planes of each precision, highest
  // first. The sums are those of encode_float, a row for each precision, lowest first.
  Weave<float, float>* weave_float;
  Weave<float, float>* weave_float_to_half;
  Weave<RawHalf, float>* weave_half;
  Weave<uint8_t, float>* weave_byte;
  Weave<double, double>* weave_double;

  // The smallest and the largest value of each column, and the largest magnitude of each row.
  // Return false where a value is not finite: what has been written then is to be thrown away.
  ColumnBounds<float, float>* column_bounds_float;
  ColumnBounds<RawHalf, float>* column_bounds_half;
  ColumnBounds<uint8_t, float>* column_bounds_byte;
  ColumnBounds<double, double>* column_bounds_double;
  RowMagnitudes<float, float>* row_magnitudes_float;
  RowMagnitudes<RawHalf, float>* row_magnitudes_half;
  RowMagnitudes<uint8_t, float>* row_magnitudes_byte;
  RowMagnitudes<double, double>* row_magnitudes_double;

  // Decodes out.rows rows of a chunk of `chunk_rows` rows, from the start of tile `first_tile` on.
  // Row scales start at that tile too. With `stream` values are written past the caches, where
  // the output has rows without gaps: a store through the caches reads the line from memory first.
  Decode<float>* decode_float;
  Decode<float>* decode_half;
  Decode<double>* decode_double;
  // To halves, given by their bits.
  Decode<float, uint16_t>* decode_float_as_half;
  Decode<float, uint16_t>* decode_half_as_half;

  // Decodes out.rows rows of a chunk, of the given numbers. Row scales are those of the chunk.
  Take<float>* take_float;
  Take<float>* take_half;
  Take<double>* take_double;
  Take<float, uint16_t>* take_float_as_half;
  Take<float, uint16_t>* take_half_as_half;

  // Mini-batch SGD over `count` tiles in the given order.
  SgdResult (*sgd)(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
                   const SgdOptions& options, SgdState state);

  // Margins of the rows of the given tiles, one tile after the other: out is rows x outputs.
  void (*margins)(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
                  const float* model, const float* intercept, size_t outputs, float* out);

  // Sum over rows of residual * value: out is outputs x columns; residuals are ordered as margins.
  void (*gradient)(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
                   const float* residuals, size_t outputs, double* out);

  // Sums over rows of code * code' (columns x columns) and of the codes (columns), exact.
  void (*gram)(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
               double* moments, double* sums);

  // Sum of the squared values of each row, ordered as margins.
  void (*square_norms)(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
                       float* out);

  // Rows first_row..last_row of a layer, over the columns from first_column on.
  void (*level_layer)(const LevelLayer& layer, int64_t first_row, int64_t last_row,
                      int64_t first_column);
  // Counts the values of each column, which must be finite and lie within its bins.
  CountValues<float>* count_float;
  CountValues<RawHalf>* count_half;
  CountValues<double>* count_double;

  // The accelerator's arithmetic: the packets of `count` tiles, one after the other, with an update at
  // the end of each whole mini-batch; and the update of a mini-batch that the run's end cuts short.
  void (*fixed_tiles)(const FixedProgram& program, FixedState& state, const uint8_t* packets, size_t count);
  void (*fixed_update)(const FixedProgram& program, FixedState& state);
};

// The live kernels: the best that the processor runs, or what ZIPML_SIMD asks for.
const Kernels& kernels();
// Names of the instruction sets that were compiled and that this processor runs, best first.
std::vector<std::string> simd_levels();
// Makes one of them live; throws std::invalid_argument for any other.
void select_simd(const std::string& name);

namespace scalar { extern const Kernels kKernels; }
namespace avx2 { extern const Kernels kKernels; }
namespace avx512 { extern const Kernels kKernels; }

}  // namespace zipml
