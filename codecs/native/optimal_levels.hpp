// Levels of least stochastic-rounding variance: ZipML (arXiv 1611.05402), section 3, in the near-linear
// way of QUIVER (NeurIPS 2024); and the histograms that stand in for values too many to sort.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core.hpp"

namespace nanobind {
class module_;
}

namespace zipml {

// Chooses levels among sorted points. The memory that it needs is kept from one call to the next.
class LevelSolver {
 public:
  // Fills `chosen` with `levels` >= 2 ascending indices, the first and the last point among them,
  // such that the sum of weight (right - point) (point - left) is least. Points ascend strictly;
  // with no more points than levels all are chosen, the last of them again and again.
  void solve(const double* points, const double* weights, size_t count, size_t levels,
             int32_t* chosen);

 private:
  void prepare(const double* points, const double* weights, size_t count);
  void split(int64_t first, int64_t last, int64_t intervals, int32_t* chosen);
  double start(int64_t first, int64_t k) const;
  void layer(int64_t first, int64_t first_row, int64_t last_row, int64_t first_column, int32_t* from);

  std::vector<double> position_, weight_sum_, sum_, by_row_, column_part_, by_column_, row_part_;
  std::vector<double> cost_, before_, static_part_;
  std::vector<int32_t> from_, middle_, next_middle_;
};

// Histograms of the columns of a table. Column c has `bins` bins, of which bin i holds the values v
// with floor(v / 2^exponent[c]) = origin[c] + i.
struct LevelBins {
  size_t columns, bins;
  const int32_t* exponent;
  const int64_t* origin;
  int64_t* counts;  // columns x bins
  int64_t* sums;    // of offsets from the lower edge, in 2^(exponent - kLevelDigits)

  // The two bins next to zero keep no sum: their values may be finer than any unit.
  bool next_to_zero(size_t c, size_t i) const {
    const int64_t k = origin[c] + static_cast<int64_t>(i);
    return k == 0 || k == -1;
  }
};

// What else is known of the values, for each column.
struct LevelFacts {
  const double *low, *high;
  const int64_t* zeros;
};

// The values of a column as weighted points, in units of a bin and counted from `base` bins.
struct LevelPoints {
  int64_t base;
  std::vector<double> points, weights;
};

// Moves the packed counts of `packed` (columns x bins) into the bins.
void unpack_counts(uint64_t* packed, const LevelBins& bins);
// Adds the contents of `other`, whose bins are as wide or narrower; false, and nothing has been
// added, where one of them would fall outside of the bins.
bool add_bins(const LevelBins& bins, const LevelBins& other);
// Smallest and largest value as they are, and the others at the means of their bins.
void find_points(const LevelBins& bins, const LevelFacts& facts, size_t column, LevelPoints& out);
// Levels of each column: columns x count.
void histogram_levels(const LevelBins& bins, const LevelFacts& facts, size_t count, double* levels);
// What levels on a grid cost: in units of the column's range, squared, averaged over its values.
struct GridCosts {
  double *found, *uniform;  // variance of rounding to the levels found, and to as many at equal distances
  double* spread;           // variance of the values
};
// Levels of each column (columns x count) as places on a grid of `top` steps from its smallest to
// its largest value: the best there are on that grid. `more` values of each column that the
// histogram does not have count at `at`.
void grid_levels(const LevelBins& bins, const LevelFacts& facts, const double* at, const double* more,
                 size_t count, int64_t top, uint16_t* places, const GridCosts& costs);
// Mean rounding variance of each column with the given levels, which ascend and span its values.
void histogram_variance(const LevelBins& bins, const LevelFacts& facts, const double* levels,
                        size_t count, double* variance);

void bind_levels(nanobind::module_& m);
void bind_tables(nanobind::module_& m);
void bind_weave(nanobind::module_& m);
void bind_fixed_point(nanobind::module_& m);
void bind_read_checked(nanobind::module_& m);

}  // namespace zipml
