// The functions of one instruction set that its table lists; see kernels.hpp for what they do.
#pragma once

#include "isa.hpp"
#include "kernels.hpp"

namespace zipml {
namespace ZIPML_ISA {

Encode<float, float> encode_float, encode_float_to_half;
Encode<RawHalf, float> encode_half;
Encode<uint8_t, float> encode_byte;
Encode<double, double> encode_double;
EncodeTable<float, float> encode_table_float, encode_table_float_to_half;
EncodeTable<RawHalf, float> encode_table_half;
EncodeTable<uint8_t, float> encode_table_byte;
EncodeTable<double, double> encode_table_double;
Weave<float, float> weave_float, weave_float_to_half;
Weave<RawHalf, float> weave_half;
Weave<uint8_t, float> weave_byte;
Weave<double, double> weave_double;
ColumnBounds<float, float> column_bounds_float;
ColumnBounds<RawHalf, float> column_bounds_half;
ColumnBounds<uint8_t, float> column_bounds_byte;
ColumnBounds<double, double> column_bounds_double;
RowMagnitudes<float, float> row_magnitudes_float;
RowMagnitudes<RawHalf, float> row_magnitudes_half;
RowMagnitudes<uint8_t, float> row_magnitudes_byte;
RowMagnitudes<double, double> row_magnitudes_double;
Decode<float> decode_float, decode_half;
Decode<double> decode_double;
Decode<float, uint16_t> decode_float_as_half, decode_half_as_half;
Take<float> take_float, take_half;
Take<double> take_double;
Take<float, uint16_t> take_float_as_half, take_half_as_half;

SgdResult sgd(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
              const SgdOptions& options, SgdState state);
void margins(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
             const float* model, const float* intercept, size_t outputs, float* out);
void gradient(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
              const float* residuals, size_t outputs, double* out);
void gram(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
          double* moments, double* sums);
void square_norms(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine, float* out);
void level_layer(const LevelLayer& layer, int64_t first_row, int64_t last_row, int64_t first_column);
CountValues<float> count_float;
CountValues<RawHalf> count_half;
CountValues<double> count_double;
void fixed_tiles(const FixedProgram& program, FixedState& state, const uint8_t* packets, size_t count);
void fixed_update(const FixedProgram& program, FixedState& state);

}  // namespace ZIPML_ISA
}  // namespace zipml
