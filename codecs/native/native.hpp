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

SgdResult sgd(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
              const SgdOptions& options, SgdState state);
void margins(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
             const float* model, const float* intercept, size_t outputs, float* out);
void gradient(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine,
              const float* residuals, size_t outputs, double* out);

}  // namespace ZIPML_ISA
}  // namespace zipml
