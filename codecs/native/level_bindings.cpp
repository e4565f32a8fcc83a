// The Python face of optimal_levels.hpp: checks every size, then releases the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cmath>

#include "arrays.hpp"
#include "kernels.hpp"
#include "optimal_levels.hpp"

namespace zipml {
namespace {

void solve_levels(Vec<double> points, Vec<double> weights, MutVec<int32_t> chosen) {
  const size_t count = points.shape(0), levels = chosen.shape(0);
  require(count >= 1 && count < (size_t{1} << 31), "1 to 2^31 - 1 points are needed");
  require(weights.shape(0) == count, "one weight for each point is needed");
  require(levels >= 2 && levels < (size_t{1} << 31), "two levels or more are needed");
  nb::gil_scoped_release release;
  LevelSolver().solve(points.data(), weights.data(), count, levels, chosen.data());
}

template <class In, CountValues<In>* Kernels::*Kernel>
void count_values(Mat<In> values, Vec<double> scale, Vec<double> shift, MutDenseMat<uint64_t> packed,
                  MutVec<int64_t> zeros) {
  const size_t rows = values.shape(0), columns = values.shape(1), bins = packed.shape(1);
  require(rows <= kLevelRows, "too many rows at once");
  require(bins >= 1 && bins <= (size_t{1} << 24), "bins must lie in 1..2^24");
  require(scale.shape(0) == columns && shift.shape(0) == columns && packed.shape(0) == columns &&
              zeros.shape(0) == columns,
          "scale, shift, bins and zeros need one entry a column");
  const Matrix<const In> m{values.data(), rows, columns, values.stride(0), values.stride(1)};
  nb::gil_scoped_release release;
  (kernels().*Kernel)(m, {scale.data(), shift.data(), bins, packed.data(), zeros.data()});
}

using Ints = MutDenseMat<int64_t>;

LevelBins bins_of(const Vec<int32_t>& exponent, const Vec<int64_t>& origin, const Ints& counts,
                  const Ints& sums) {
  const size_t columns = counts.shape(0), bins = counts.shape(1);
  require(sums.shape(0) == columns && sums.shape(1) == bins, "each bin needs a count and a sum");
  require(exponent.shape(0) == columns && origin.shape(0) == columns,
          "each column needs an exponent and an origin");
  return {columns, bins, exponent.data(), origin.data(), counts.data(), sums.data()};
}

LevelFacts facts_of(const LevelBins& bins, const Vec<double>& low, const Vec<double>& high,
                    const Vec<int64_t>& zeros) {
  require(low.shape(0) == bins.columns && high.shape(0) == bins.columns && zeros.shape(0) == bins.columns,
          "each column needs bounds and a number of zeros");
  for (size_t c = 0; c < bins.columns; ++c) {
    require(std::isfinite(low.data()[c]) && std::isfinite(high.data()[c]), "bounds must be finite");
  }
  return {low.data(), high.data(), zeros.data()};
}

void unpack_counts_of(MutDenseMat<uint64_t> packed, Vec<int32_t> exponent, Vec<int64_t> origin,
                      Ints counts, Ints sums) {
  const LevelBins bins = bins_of(exponent, origin, counts, sums);
  require(packed.shape(0) == bins.columns && packed.shape(1) == bins.bins, "the packed bins differ");
  nb::gil_scoped_release release;
  unpack_counts(packed.data(), bins);
}

void add_bins_of(Vec<int32_t> exponent, Vec<int64_t> origin, Ints counts, Ints sums,
                 Vec<int32_t> other_exponent, Vec<int64_t> other_origin, Ints other_counts,
                 Ints other_sums) {
  const LevelBins bins = bins_of(exponent, origin, counts, sums);
  const LevelBins other = bins_of(other_exponent, other_origin, other_counts, other_sums);
  require(bins.columns == other.columns, "the columns differ");
  bool fit;
  {
    nb::gil_scoped_release release;
    fit = add_bins(bins, other);
  }
  require(fit, "the bins do not hold those that are to be added");
}

void levels_of(Vec<int32_t> exponent, Vec<int64_t> origin, Ints counts, Ints sums, Vec<double> low,
               Vec<double> high, Vec<int64_t> zeros, MutDenseMat<double> levels) {
  const LevelBins bins = bins_of(exponent, origin, counts, sums);
  const LevelFacts facts = facts_of(bins, low, high, zeros);
  require(levels.shape(0) == bins.columns && levels.shape(1) >= 2, "two levels a column or more are needed");
  nb::gil_scoped_release release;
  histogram_levels(bins, facts, levels.shape(1), levels.data());
}

void variance_of(Vec<int32_t> exponent, Vec<int64_t> origin, Ints counts, Ints sums, Vec<double> low,
                 Vec<double> high, Vec<int64_t> zeros, DenseMat<double> levels,
                 MutVec<double> variance) {
  const LevelBins bins = bins_of(exponent, origin, counts, sums);
  const LevelFacts facts = facts_of(bins, low, high, zeros);
  require(levels.shape(0) == bins.columns && levels.shape(1) >= 2, "two levels a column or more are needed");
  require(variance.shape(0) == bins.columns, "variance needs one entry a column");
  nb::gil_scoped_release release;
  histogram_variance(bins, facts, levels.data(), levels.shape(1), variance.data());
}

void grid_levels_of(Vec<int32_t> exponent, Vec<int64_t> origin, Ints counts, Ints sums, Vec<double> low,
                    Vec<double> high, Vec<int64_t> zeros, Vec<double> at, Vec<double> more, int64_t top,
                    MutDenseMat<uint16_t> places, MutVec<double> found, MutVec<double> uniform,
                    MutVec<double> spread) {
  const LevelBins bins = bins_of(exponent, origin, counts, sums);
  const LevelFacts facts = facts_of(bins, low, high, zeros);
  require(top >= 1 && top < 65536, "a grid has 1 to 65535 steps");
  require(places.shape(0) == bins.columns && places.shape(1) >= 2, "two levels a column or more are needed");
  for (const size_t size : {at.shape(0), more.shape(0), found.shape(0), uniform.shape(0), spread.shape(0)}) {
    require(size == bins.columns, "each column needs one entry");
  }
  nb::gil_scoped_release release;
  grid_levels(bins, facts, at.data(), more.data(), places.shape(1), top, places.data(),
              {found.data(), uniform.data(), spread.data()});
}

}  // namespace

void bind_levels(nb::module_& m) {
  m.attr("LEVEL_DIGITS") = kLevelDigits;
  m.attr("LEVEL_ROWS") = kLevelRows;
  m.def("solve_levels", &solve_levels, nb::arg("points"), nb::arg("weights"),
        nb::arg("chosen").noconvert());
  const auto def_count = [&m](auto f) {
    m.def("count_values", f, nb::arg("values").noconvert(), nb::arg("scale"), nb::arg("shift"),
          nb::arg("packed").noconvert(), nb::arg("zeros").noconvert());
  };
  def_count(&count_values<float, &Kernels::count_float>);
  def_count(&count_values<RawHalf, &Kernels::count_half>);
  def_count(&count_values<double, &Kernels::count_double>);
  m.def("unpack_counts", &unpack_counts_of, nb::arg("packed").noconvert(), nb::arg("exponent"),
        nb::arg("origin"), nb::arg("counts").noconvert(), nb::arg("sums").noconvert());
  m.def("add_bins", &add_bins_of, nb::arg("exponent"), nb::arg("origin"),
        nb::arg("counts").noconvert(), nb::arg("sums").noconvert(), nb::arg("other_exponent"),
        nb::arg("other_origin"), nb::arg("other_counts").noconvert(), nb::arg("other_sums").noconvert());
  m.def("histogram_levels", &levels_of, nb::arg("exponent"), nb::arg("origin"),
        nb::arg("counts").noconvert(), nb::arg("sums").noconvert(), nb::arg("low"), nb::arg("high"),
        nb::arg("zeros"), nb::arg("levels").noconvert());
  m.def("grid_levels", &grid_levels_of, nb::arg("exponent"), nb::arg("origin"),
        nb::arg("counts").noconvert(), nb::arg("sums").noconvert(), nb::arg("low"), nb::arg("high"),
        nb::arg("zeros"), nb::arg("at"), nb::arg("more"), nb::arg("top"), nb::arg("places").noconvert(),
        nb::arg("found").noconvert(), nb::arg("uniform").noconvert(), nb::arg("spread").noconvert());
  m.def("histogram_variance", &variance_of, nb::arg("exponent"), nb::arg("origin"),
        nb::arg("counts").noconvert(), nb::arg("sums").noconvert(), nb::arg("low"), nb::arg("high"),
        nb::arg("zeros"), nb::arg("levels"), nb::arg("variance").noconvert());
}

}  // namespace zipml
