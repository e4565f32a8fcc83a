// The Python face of the encoders for level tables: checks every size, then releases the GIL.
#include <nanobind/stl/optional.h>

#include "arrays.hpp"
#include "kernels.hpp"
#include "optimal_levels.hpp"

namespace zipml {
namespace {

using Places = DenseMat<uint16_t>;

template <class T, class In>
bool encode_table(Mat<In> values, const Vec<T>& lower, const Vec<T>& upper, const Places& places, int top,
                  int bits, int samples, uint64_t seed, uint64_t first_tile, EncodeTable<In, T>* encode,
                  const MutVec<uint8_t>& codes, const MutDenseMat<uint64_t>& variance) {
  require(bits >= 1 && bits <= 8, "bits must lie in 1..8");
  require(samples == 1 || samples == 2 || samples == 4 || samples == 8, "samples must be 1, 2, 4 or 8");
  const CodeSpec spec{bits, samples};
  require(samples <= 2 || spec.stored_bits() <= 8, "four and eight samples take up to eight stored bits");
  const size_t rows = values.shape(0), columns = values.shape(1), levels = size_t{1} << bits;
  require(lower.shape(0) == columns && upper.shape(0) == columns,
          "one lower and one upper bound for each column is needed");
  require(places.shape(0) == columns && places.shape(1) == levels, "a table has one place a level and column");
  require(top >= 1 && top < 65536, "a grid has 1 to 65535 steps");
  for (size_t i = 0; i < columns * levels; ++i) {
    require(places.data()[i] <= top, "a place lies outside of the grid");
    require(i % levels == 0 || places.data()[i - 1] <= places.data()[i], "places must ascend");
  }
  require(codes.shape(0) == checked_codes_size(rows, columns, spec.stored_bits()),
          "the code buffer has the wrong size");
  require(variance.shape(0) == columns && variance.shape(1) == 2, "variance needs two words a column");
  const Matrix<const In> m{values.data(), rows, columns, values.stride(0), values.stride(1)};
  // Words of a sum follow one another, the low one first, as they do in memory.
  auto* sums = reinterpret_cast<WideSum*>(variance.data());
  nb::gil_scoped_release release;
  return encode(m, {lower.data(), upper.data(), false}, {places.data(), top}, spec, seed, first_tile,
                codes.data(), sums);
}

bool encode_table_floats(Mat<float> values, Vec<float> lower, Vec<float> upper, Places places, int top,
                         int bits, int samples, uint64_t seed, uint64_t first_tile, bool half,
                         MutVec<uint8_t> codes, MutDenseMat<uint64_t> variance) {
  const auto encode = half ? kernels().encode_table_float_to_half : kernels().encode_table_float;
  return encode_table<float, float>(values, lower, upper, places, top, bits, samples, seed, first_tile,
                                    encode, codes, variance);
}

template <class T, class In, EncodeTable<In, T>* Kernels::*Kernel>
bool encode_table_values(Mat<In> values, Vec<T> lower, Vec<T> upper, Places places, int top, int bits,
                         int samples, uint64_t seed, uint64_t first_tile, MutVec<uint8_t> codes,
                         MutDenseMat<uint64_t> variance) {
  return encode_table<T, In>(values, lower, upper, places, top, bits, samples, seed, first_tile,
                             kernels().*Kernel, codes, variance);
}

}  // namespace

void bind_tables(nb::module_& m) {
  m.def("encode_table_f32", &encode_table_floats, nb::arg("values").noconvert(), nb::arg("lower"),
        nb::arg("upper"), nb::arg("places").noconvert(), nb::arg("top"), nb::arg("bits"),
        nb::arg("samples"), nb::arg("seed"), nb::arg("first_tile"), nb::arg("half"),
        nb::arg("codes").noconvert(), nb::arg("variance").noconvert());
  const auto def = [&m](const char* name, auto f) {
    m.def(name, f, nb::arg("values").noconvert(), nb::arg("lower"), nb::arg("upper"),
          nb::arg("places").noconvert(), nb::arg("top"), nb::arg("bits"), nb::arg("samples"),
          nb::arg("seed"), nb::arg("first_tile"), nb::arg("codes").noconvert(),
          nb::arg("variance").noconvert());
  };
  def("encode_table_f16", &encode_table_values<float, RawHalf, &Kernels::encode_table_half>);
  def("encode_table_f64", &encode_table_values<double, double, &Kernels::encode_table_double>);
  def("encode_table_u8", &encode_table_values<float, uint8_t, &Kernels::encode_table_byte>);
}

}  // namespace zipml
