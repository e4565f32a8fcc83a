// The table of one instruction set's kernels.
#include "isa.hpp"
#include "kernels.hpp"
#include "native.hpp"

namespace zipml {
namespace ZIPML_ISA {

#define ZIPML_NAME_(x) #x
#define ZIPML_NAME(x) ZIPML_NAME_(x)

extern const Kernels kKernels = {
    ZIPML_NAME(ZIPML_ISA),
    &encode_float,
    &encode_float_to_half,
    &encode_half,
    &encode_byte,
    &encode_double,
    &encode_table_float,
    &encode_table_float_to_half,
    &encode_table_half,
    &encode_table_byte,
    &encode_table_double,
    &weave_float,
    &weave_float_to_half,
    &weave_half,
    &weave_byte,
    &weave_double,
    &column_bounds_float,
    &column_bounds_half,
    &column_bounds_byte,
    &column_bounds_double,
    &row_magnitudes_float,
    &row_magnitudes_half,
    &row_magnitudes_byte,
    &row_magnitudes_double,
    &decode_float,
    &decode_half,
    &decode_double,
    &decode_float_as_half,
    &decode_half_as_half,
    &take_float,
    &take_half,
    &take_double,
    &take_float_as_half,
    &take_half_as_half,
    &sgd,
    &margins,
    &gradient,
    &gram,
    &square_norms,
    &level_layer,
    &count_float,
    &count_half,
    &count_double,
    &fixed_tiles,
    &fixed_update,
};

}  // namespace ZIPML_ISA
}  // namespace zipml
