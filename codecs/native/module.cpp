// The Python face of the native core: checks every size, then releases the GIL.
#include <cstring>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "crc32c.hpp"
#include "kernels.hpp"
#include "layout.hpp"
#include "optimal_levels.hpp"
#include "philox.hpp"
#include "tile_batch.hpp"

namespace nb = nanobind;
using namespace zipml;

namespace {

CodeSpec code_spec(int bits, int samples, bool woven = false) {
  require(bits >= 1 && bits <= 8, "bits must lie in 1..8");
  require(samples == 1 || samples == 2 || (!woven && (samples == 4 || samples == 8)),
          "samples must be 1, 2, 4 or 8, with the weaved layout 1 or 2");
  const CodeSpec spec{bits, samples, woven};
  require(samples <= 2 || spec.stored_bits() <= 8, "four and eight samples take up to eight stored bits");
  return spec;
}

// `values`: those of each stored code of each column, for level tables.
template <class T>
Scales<T> make_scales(const std::optional<Vec<T>>& lower, const Vec<T>& upper, size_t rows,
                      size_t columns, const std::optional<DenseMat<T>>& values = {}, int stored_bits = 0) {
  if (!lower) {
    require(upper.shape(0) == rows, "one row scale for each row is needed");
    return {nullptr, upper.data(), true};
  }
  require(lower->shape(0) == columns && upper.shape(0) == columns,
          "one lower and one upper bound for each column is needed");
  if (!values) return {lower->data(), upper.data(), false};
  const size_t codes = size_t{1} << stored_bits;
  require(values->shape(0) == columns && values->shape(1) == codes,
          "the values of level tables are one for each code of each column");
  return {lower->data(), upper.data(), false, values->data(), codes};
}

// Encodes a matrix of any type whose values are kept as T, and says whether all of them lie within
// their bounds.
template <class T, class In>
bool encode_matrix(Mat<In> values, const std::optional<Vec<T>>& lower, const Vec<T>& upper, int bits,
                   int samples, uint64_t seed, uint64_t first_tile, Encode<In, T>* encode,
                   const MutVec<uint8_t>& codes, const std::optional<MutVec<uint64_t>>& variance,
                   const std::optional<MutVec<double>>& row_variance) {
  const CodeSpec spec = code_spec(bits, samples);
  require(samples <= 2 || lower, "more than two samples go with column scales");
  const size_t rows = values.shape(0), columns = values.shape(1);
  const Matrix<const In> m{values.data(), rows, columns, values.stride(0), values.stride(1)};
  const Scales<T> scales = make_scales<T>(lower, upper, rows, columns);
  require(codes.shape(0) == checked_codes_size(rows, columns, spec.stored_bits()),
          "the code buffer has the wrong size");
  require(!variance || variance->shape(0) == columns, "variance needs one entry a column");
  require(!row_variance || row_variance->shape(0) == columns, "variance needs one entry a column");
  uint64_t* var = variance ? variance->data() : nullptr;
  double* row_var = row_variance ? row_variance->data() : nullptr;
  nb::gil_scoped_release release;
  return encode(m, scales, spec, seed, first_tile, codes.data(), var, row_var);
}

bool encode_floats(Mat<float> values, std::optional<Vec<float>> lower, Vec<float> upper, int bits,
                   int samples, uint64_t seed, uint64_t first_tile, bool half, MutVec<uint8_t> codes,
                   std::optional<MutVec<uint64_t>> variance,
                   std::optional<MutVec<double>> row_variance) {
  const auto encode = half ? kernels().encode_float_to_half : kernels().encode_float;
  return encode_matrix<float, float>(values, lower, upper, bits, samples, seed, first_tile, encode,
                                     codes, variance, row_variance);
}

template <class T, class In, Encode<In, T>* Kernels::*Kernel>
bool encode_values(Mat<In> values, std::optional<Vec<T>> lower, Vec<T> upper, int bits, int samples,
                   uint64_t seed, uint64_t first_tile, MutVec<uint8_t> codes,
                   std::optional<MutVec<uint64_t>> variance,
                   std::optional<MutVec<double>> row_variance) {
  return encode_matrix<T, In>(values, lower, upper, bits, samples, seed, first_tile,
                              kernels().*Kernel, codes, variance, row_variance);
}

template <class T, class In, ColumnBounds<In, T>* Kernels::*Kernel>
bool column_bounds(Mat<In> values, MutVec<T> low, MutVec<T> high) {
  const size_t rows = values.shape(0), columns = values.shape(1);
  require(low.shape(0) == columns && high.shape(0) == columns, "bounds need one entry a column");
  const Matrix<const In> m{values.data(), rows, columns, values.stride(0), values.stride(1)};
  nb::gil_scoped_release release;
  return (kernels().*Kernel)(m, low.data(), high.data());
}

template <class T, class In, RowMagnitudes<In, T>* Kernels::*Kernel>
bool row_magnitudes(Mat<In> values, MutVec<T> largest) {
  const size_t rows = values.shape(0), columns = values.shape(1);
  require(largest.shape(0) == rows, "magnitudes need one entry a row");
  const Matrix<const In> m{values.data(), rows, columns, values.stride(0), values.stride(1)};
  nb::gil_scoped_release release;
  return (kernels().*Kernel)(m, largest.data());
}

// Whether all numbers of a contiguous array of doubles are finite. Infinities and NaN have all bits of
// the exponent set: one more in its last place goes over into the sign, which is cleared before.
bool all_finite(nb::handle values) {
  Py_buffer view;
  if (PyObject_GetBuffer(values.ptr(), &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0) throw nb::python_error();
  const char* const format = view.format ? view.format : "";
  const char* const ours = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? "<d" : ">d";
  const bool doubles = std::strcmp(format, "d") == 0 || std::strcmp(format, ours) == 0;
  uint64_t over = 0;
  if (doubles) {
    constexpr uint64_t exponent = uint64_t{0x7FF} << 52, last = uint64_t{1} << 52;
    const char* const data = static_cast<const char*>(view.buf);
    const size_t size = static_cast<size_t>(view.len);
    nb::gil_scoped_release release;
    for (size_t at = 0; at < size; at += sizeof(double)) {
      uint64_t bits;
      std::memcpy(&bits, data + at, sizeof bits);
      over |= (bits & exponent) + last;
    }
  }
  PyBuffer_Release(&view);
  require(doubles, "all_finite takes float64 in the order of this machine");
  return over >> 63 == 0;
}

// Out is T, or the bits of halves.
template <class T, class Out>
void decode_values(Vec<uint8_t> codes, size_t chunk_rows, size_t first_tile,
                   std::optional<Vec<T>> lower, Vec<T> upper, int bits, int samples, bool half,
                   MutMat<Out> out, bool stream, std::optional<DenseMat<T>> values, bool woven) {
  const CodeSpec spec = code_spec(bits, samples, woven);
  const size_t rows = out.shape(0), columns = out.shape(1);
  require(codes.shape(0) == checked_codes_size(chunk_rows, columns, spec.stored_bits()),
          "the code buffer has the wrong size");
  require(first_tile <= tile_count(chunk_rows) && first_tile * kTileRows + rows <= chunk_rows,
          "the rows asked for lie outside of the chunk");
  require((!woven && samples <= 2) || (lower && values),
          "more than two samples and the weaved layout are read with bounds and the values of codes");
  const Scales<T> scales = make_scales<T>(lower, upper, rows, columns, values, spec.stored_bits());
  const Matrix<Out> m{out.data(), rows, columns, out.stride(0), out.stride(1)};
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  if constexpr (sizeof(T) == 8) {
    k.decode_double(codes.data(), chunk_rows, first_tile, scales, spec, stream, m);
  } else if constexpr (sizeof(Out) == 2) {
    (half ? k.decode_half_as_half : k.decode_float_as_half)(codes.data(), chunk_rows, first_tile,
                                                            scales, spec, stream, m);
  } else {
    (half ? k.decode_half : k.decode_float)(codes.data(), chunk_rows, first_tile, scales, spec,
                                            stream, m);
  }
}

template <class T, class Out>
void take_values(Vec<uint8_t> codes, size_t chunk_rows, Vec<int64_t> rows,
                 std::optional<Vec<T>> lower, Vec<T> upper, int bits, int samples, bool half,
                 MutMat<Out> out, std::optional<DenseMat<T>> values, bool woven) {
  const CodeSpec spec = code_spec(bits, samples, woven);
  const size_t columns = out.shape(1);
  require(rows.shape(0) == out.shape(0), "the output needs one row for each row asked for");
  require(codes.shape(0) == checked_codes_size(chunk_rows, columns, spec.stored_bits()),
          "the code buffer has the wrong size");
  // A copy is what is checked and used: another thread may write to the caller's.
  const std::vector<int64_t> chosen(rows.data(), rows.data() + rows.shape(0));
  for (const int64_t row : chosen) {
    require(row >= 0 && static_cast<uint64_t>(row) < chunk_rows, "a row lies outside of the chunk");
  }
  require((!woven && samples <= 2) || (lower && values),
          "more than two samples and the weaved layout are read with bounds and the values of codes");
  const Scales<T> scales = make_scales<T>(lower, upper, chunk_rows, columns, values, spec.stored_bits());
  const Matrix<Out> m{out.data(), chosen.size(), columns, out.stride(0), out.stride(1)};
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  if constexpr (sizeof(T) == 8) {
    k.take_double(codes.data(), chunk_rows, chosen.data(), scales, spec, m);
  } else if constexpr (sizeof(Out) == 2) {
    (half ? k.take_half_as_half : k.take_float_as_half)(codes.data(), chunk_rows, chosen.data(),
                                                        scales, spec, m);
  } else {
    (half ? k.take_half : k.take_float)(codes.data(), chunk_rows, chosen.data(), scales, spec, m);
  }
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Native core of zipml: quantise, pack, unpack and train on packed tiles.";

  m.def("codes_size", [](size_t rows, size_t columns, int stored_bits) {
    require(stored_bits >= 1 && stored_bits <= 9, "stored bits must lie in 1..9");
    return checked_codes_size(rows, columns, stored_bits);
  }, nb::arg("rows"), nb::arg("columns"), nb::arg("stored_bits"));

  m.def("crc32c", [](Vec<uint8_t> data, uint32_t before) {
    const char* level = kernels().name;
    nb::gil_scoped_release release;
    return crc32c(data.data(), data.shape(0), before, level);
  }, nb::arg("data"), nb::arg("before") = 0);

  m.def("simd_levels", &simd_levels);
  m.def("live_simd", [] { return std::string(kernels().name); });
  m.def("select_simd", &select_simd, nb::arg("name"));

  m.def("encode_f32", &encode_floats, nb::arg("values"), nb::arg("lower").none(),
        nb::arg("upper"), nb::arg("bits"), nb::arg("samples"), nb::arg("seed"),
        nb::arg("first_tile"), nb::arg("half"), nb::arg("codes").noconvert(), nb::arg("variance").noconvert().none(),
        nb::arg("row_variance").noconvert().none());
  const auto def_encode = [&m](const char* name, auto f) {
    m.def(name, f, nb::arg("values").noconvert(), nb::arg("lower").none(), nb::arg("upper"), nb::arg("bits"),
          nb::arg("samples"), nb::arg("seed"), nb::arg("first_tile"), nb::arg("codes"),
          nb::arg("variance").none(), nb::arg("row_variance").noconvert().none());
  };
  def_encode("encode_f16", &encode_values<float, RawHalf, &Kernels::encode_half>);
  def_encode("encode_f64", &encode_values<double, double, &Kernels::encode_double>);
  def_encode("encode_u8", &encode_values<float, uint8_t, &Kernels::encode_byte>);
  m.def("all_finite", &all_finite, nb::arg("values"));
  const auto def_column_bounds = [&m](auto f) {
    m.def("column_bounds", f, nb::arg("values").noconvert(), nb::arg("low").noconvert(),
          nb::arg("high").noconvert());
  };
  def_column_bounds(&column_bounds<float, float, &Kernels::column_bounds_float>);
  def_column_bounds(&column_bounds<float, RawHalf, &Kernels::column_bounds_half>);
  def_column_bounds(&column_bounds<float, uint8_t, &Kernels::column_bounds_byte>);
  def_column_bounds(&column_bounds<double, double, &Kernels::column_bounds_double>);
  const auto def_row_magnitudes = [&m](auto f) {
    m.def("row_magnitudes", f, nb::arg("values").noconvert(), nb::arg("largest").noconvert());
  };
  def_row_magnitudes(&row_magnitudes<float, float, &Kernels::row_magnitudes_float>);
  def_row_magnitudes(&row_magnitudes<float, RawHalf, &Kernels::row_magnitudes_half>);
  def_row_magnitudes(&row_magnitudes<float, uint8_t, &Kernels::row_magnitudes_byte>);
  def_row_magnitudes(&row_magnitudes<double, double, &Kernels::row_magnitudes_double>);
  m.def("decode_f16", &decode_values<float, uint16_t>, nb::arg("codes"), nb::arg("chunk_rows"),
        nb::arg("first_tile"), nb::arg("lower").none(), nb::arg("upper"), nb::arg("bits"),
        nb::arg("samples"), nb::arg("half"), nb::arg("out").noconvert(), nb::arg("stream") = false,
        nb::arg("values") = nb::none(), nb::arg("woven") = false);
  m.def("decode_f32", &decode_values<float, float>, nb::arg("codes"), nb::arg("chunk_rows"),
        nb::arg("first_tile"), nb::arg("lower").none(), nb::arg("upper"), nb::arg("bits"),
        nb::arg("samples"), nb::arg("half"), nb::arg("out").noconvert(), nb::arg("stream") = false,
        nb::arg("values") = nb::none(), nb::arg("woven") = false);
  m.def("decode_f64", &decode_values<double, double>, nb::arg("codes"), nb::arg("chunk_rows"),
        nb::arg("first_tile"), nb::arg("lower").none(), nb::arg("upper"), nb::arg("bits"),
        nb::arg("samples"), nb::arg("half"), nb::arg("out").noconvert(), nb::arg("stream") = false,
        nb::arg("values") = nb::none(), nb::arg("woven") = false);
  m.def("take_f16", &take_values<float, uint16_t>, nb::arg("codes"), nb::arg("chunk_rows"),
        nb::arg("rows"), nb::arg("lower").none(), nb::arg("upper"), nb::arg("bits"),
        nb::arg("samples"), nb::arg("half"), nb::arg("out").noconvert(),
        nb::arg("values") = nb::none(), nb::arg("woven") = false);
  m.def("take_f32", &take_values<float, float>, nb::arg("codes"), nb::arg("chunk_rows"),
        nb::arg("rows"), nb::arg("lower").none(), nb::arg("upper"), nb::arg("bits"),
        nb::arg("samples"), nb::arg("half"), nb::arg("out").noconvert(),
        nb::arg("values") = nb::none(), nb::arg("woven") = false);
  m.def("take_f64", &take_values<double, double>, nb::arg("codes"), nb::arg("chunk_rows"),
        nb::arg("rows"), nb::arg("lower").none(), nb::arg("upper"), nb::arg("bits"),
        nb::arg("samples"), nb::arg("half"), nb::arg("out").noconvert(),
        nb::arg("values") = nb::none(), nb::arg("woven") = false);

  m.def("quantize_draws", [](uint64_t seed, uint64_t tile, uint32_t column, MutVec<uint16_t> out) {
    require(out.shape(0) == kTileRows, "a tile has 64 draws a column");
    uint16_t draws[16][kTileRows];
    quantize_draws(PhiloxKey(seed), tile, column, draws);
    std::copy(draws[0], draws[0] + kTileRows, out.data());
  }, nb::arg("seed"), nb::arg("tile"), nb::arg("column"), nb::arg("out").noconvert());

  bind_levels(m);
  bind_tables(m);
  bind_weave(m);
  bind_fixed_point(m);
  bind_read_checked(m);

  nb::class_<TileBatch>(m, "TileBatch",
                        "Tiles of encoded chunks, to be visited in the given order.")
      .def(nb::init<TileBatch::Codes, TileBatch::Targets, TileBatch::RowScales, Vec<uint64_t>,
                    DenseMat<uint32_t>, Vec<float>, Vec<float>, Vec<float>, int, size_t,
                    std::optional<TileBatch::Tables>, TileBatch::Weights, int, std::optional<TileBatch::Whole>>(),
           nb::arg("codes"), nb::arg("targets"), nb::arg("row_scales"), nb::arg("first_tiles"),
           nb::arg("tiles"), nb::arg("offset"), nb::arg("slope"), nb::arg("centre"),
           nb::arg("stored_bits"), nb::arg("outputs"), nb::arg("tables") = nb::none(),
           nb::arg("weights") = TileBatch::Weights(), nb::arg("woven") = 0,
           nb::arg("whole").noconvert() = nb::none())  // planes come into them: no copies
      .def_prop_ro("rows", &TileBatch::rows)
      .def("margins", &TileBatch::margins, nb::arg("model"), nb::arg("intercept"), nb::arg("out").noconvert())
      .def("gradient", &TileBatch::gradient, nb::arg("residuals"), nb::arg("out").noconvert())
      .def("gram", &TileBatch::gram, nb::arg("moments").noconvert(), nb::arg("sums").noconvert())
      .def("square_norms", &TileBatch::square_norms, nb::arg("out").noconvert())
      .def("sgd", &TileBatch::sgd, nb::arg("model").noconvert(), nb::arg("intercept").noconvert(), nb::arg("model_sum").noconvert(),
           nb::arg("intercept_sum").noconvert(), nb::arg("loss"), nb::arg("arithmetic"), nb::arg("split"), nb::arg("correction"),
           nb::arg("variance"), nb::arg("l2"), nb::arg("fit_intercept"), nb::arg("batch_tiles"), nb::arg("batch_rows"),
           nb::arg("step_first"), nb::arg("step_last"), nb::arg("average_from"), nb::arg("seed"),
           nb::arg("draw"), nb::arg("l1") = nb::none(), nb::arg("momentum") = 0.0,
           nb::arg("velocity").noconvert() = nb::none(), nb::arg("intercept_velocity").noconvert() = nb::none(),
           nb::arg("anchor") = nb::none(), nb::arg("huber_delta") = 1.345f, nb::arg("fetch") = nb::none(),
           nb::arg("refetched").noconvert() = nb::none(), nb::arg("polynomial") = nb::none())
      .def("full_gradient", &TileBatch::full_gradient, nb::arg("model"), nb::arg("intercept"), nb::arg("loss"),
           nb::arg("arithmetic"), nb::arg("split"), nb::arg("correction"), nb::arg("variance"),
           nb::arg("batch_tiles"), nb::arg("seed"), nb::arg("draw"), nb::arg("out").noconvert(),
           nb::arg("intercept_out").noconvert(), nb::arg("huber_delta") = 1.345f, nb::arg("fetch") = nb::none(),
           nb::arg("refetched").noconvert() = nb::none(), nb::arg("polynomial") = nb::none());
}
