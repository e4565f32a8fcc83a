// The Python face of the encoders of the weaved layout: checks every size, then releases the GIL.
#include "arrays.hpp"
#include "kernels.hpp"
#include "optimal_levels.hpp"

namespace zipml {
namespace {

template <class T, class In>
bool weave(Mat<In> values, const Vec<T>& lower, const Vec<T>& upper, int bits, int samples, uint32_t precisions,
           uint64_t seed, uint64_t first_tile, Weave<In, T>* encode, const MutVec<uint8_t>& codes,
           const MutDenseMat<uint64_t>& variance) {
  require(bits >= 1 && bits <= 8, "bits must lie in 1..8");
  require(samples == 1 || samples == 2, "samples must be 1 or 2");
  require(precisions != 0 && precisions >> bits == 0, "precisions must lie in 1..bits");
  const size_t rows = values.shape(0), columns = values.shape(1);
  const size_t count = static_cast<size_t>(__builtin_popcount(precisions));
  require(lower.shape(0) == columns && upper.shape(0) == columns,
          "one lower and one upper bound for each column is needed");
  const size_t planes = static_cast<size_t>(bits) + static_cast<size_t>(samples) * count;
  require(codes.shape(0) == checked_codes_size(rows, columns, 1) * planes, "the code buffer has the wrong size");
  require(variance.shape(0) == count && variance.shape(1) == columns,
          "variance needs one entry for each precision and column");
  const Matrix<const In> m{values.data(), rows, columns, values.stride(0), values.stride(1)};
  nb::gil_scoped_release release;
  return encode(m, {lower.data(), upper.data(), false}, {bits, samples, precisions}, seed, first_tile, codes.data(),
                variance.data());
}

bool weave_floats(Mat<float> values, Vec<float> lower, Vec<float> upper, int bits, int samples, uint32_t precisions,
                  uint64_t seed, uint64_t first_tile, bool half, MutVec<uint8_t> codes,
                  MutDenseMat<uint64_t> variance) {
  const auto encode = half ? kernels().weave_float_to_half : kernels().weave_float;
  return weave<float, float>(values, lower, upper, bits, samples, precisions, seed, first_tile, encode, codes,
                             variance);
}

template <class T, class In, Weave<In, T>* Kernels::*Kernel>
bool weave_values(Mat<In> values, Vec<T> lower, Vec<T> upper, int bits, int samples, uint32_t precisions,
                  uint64_t seed, uint64_t first_tile, MutVec<uint8_t> codes, MutDenseMat<uint64_t> variance) {
  return weave<T, In>(values, lower, upper, bits, samples, precisions, seed, first_tile, kernels().*Kernel, codes,
                      variance);
}

}  // namespace

void bind_weave(nb::module_& m) {
  m.def("weave_f32", &weave_floats, nb::arg("values").noconvert(), nb::arg("lower"), nb::arg("upper"),
        nb::arg("bits"), nb::arg("samples"), nb::arg("precisions"), nb::arg("seed"), nb::arg("first_tile"),
        nb::arg("half"), nb::arg("codes").noconvert(), nb::arg("variance").noconvert());
  const auto def = [&m](const char* name, auto f) {
    m.def(name, f, nb::arg("values").noconvert(), nb::arg("lower"), nb::arg("upper"), nb::arg("bits"),
          nb::arg("samples"), nb::arg("precisions"), nb::arg("seed"), nb::arg("first_tile"),
          nb::arg("codes").noconvert(), nb::arg("variance").noconvert());
  };
  def("weave_f16", &weave_values<float, RawHalf, &Kernels::weave_half>);
  def("weave_f64", &weave_values<double, double, &Kernels::weave_double>);
  def("weave_u8", &weave_values<float, uint8_t, &Kernels::weave_byte>);
}

}  // namespace zipml
