// Histograms that stand in for values too many to sort; optimal_levels.hpp says what they are.
#include <algorithm>
#include <cmath>

#include "kernels.hpp"
#include "optimal_levels.hpp"

namespace zipml {
namespace {

constexpr int64_t kUnit = int64_t{1} << kLevelDigits;

// floor(k / 2^shift)
int64_t coarser(int64_t k, int64_t shift) { return k >> std::min<int64_t>(shift, 62); }

// The bin of a value, of the given width, and its offset in units: as count_one finds them.
struct Place {
  int64_t bin, offset;
  Place(double value, int exponent) {
    const double t = std::trunc(std::ldexp(value, kLevelDigits - exponent));
    double kept = t;
    if (std::fabs(t) >= static_cast<double>(kUnit)) {
      int power;
      const double digits = std::trunc(std::ldexp(std::frexp(t, &power), kLevelDigits));
      kept = std::ldexp(digits, power - kLevelDigits);
    }
    if (kept == 0 && value < 0) kept = -1;
    const auto units = static_cast<int64_t>(kept);
    bin = units >> kLevelDigits;
    offset = units & (kUnit - 1);
  }
};

// Adds the bins first .. end of a column of `other`, which are as wide, to those that lie `from` further.
void add_equal(const LevelBins& b, const LevelBins& other, size_t c, int64_t first, int64_t end, int64_t from) {
  const int64_t* const counts = other.counts + c * other.bins;
  const int64_t* const sums = other.sums + c * other.bins;
  int64_t* const to_counts = b.counts + c * b.bins;
  int64_t* const to_sums = b.sums + c * b.bins;
  int64_t kept[2] = {0, 0};  // of the bins next to zero
  for (const int64_t k : {-1, 0}) {
    const int64_t place = k - b.origin[c];
    if (place >= 0 && place < static_cast<int64_t>(b.bins)) kept[k + 1] = to_sums[place];
  }
  for (int64_t i = first; i < end; ++i) to_counts[i + from] += counts[i];
  for (int64_t i = first; i < end; ++i) to_sums[i + from] += sums[i];
  for (const int64_t k : {-1, 0}) {
    const int64_t place = k - b.origin[c];
    if (place >= 0 && place < static_cast<int64_t>(b.bins)) to_sums[place] = kept[k + 1];
  }
}

// The same for bins that are narrower, by 2^shift.
void add_narrower(const LevelBins& b, const LevelBins& other, size_t c, int64_t first, int64_t end,
                  int64_t shift) {
  for (int64_t i = first; i < end; ++i) {
    const size_t source = c * other.bins + static_cast<size_t>(i);
    const int64_t count = other.counts[source];
    if (count == 0) continue;
    const int64_t k = other.origin[c] + i, to = coarser(k, shift), place = to - b.origin[c];
    const size_t target = c * b.bins + static_cast<size_t>(place);
    b.counts[target] += count;
    if (b.next_to_zero(c, static_cast<size_t>(place))) continue;
    // Exact: away from zero every value is a whole number of the wider units too.
    const int64_t edge = k - to * (int64_t{1} << shift);
    if (shift <= 8 && count < int64_t{1} << 26) {
      b.sums[target] += (other.sums[source] + count * edge * kUnit) >> shift;
    } else {
      const __int128 sum = other.sums[source] + static_cast<__int128>(count) * edge * kUnit;
      b.sums[target] += static_cast<int64_t>(sum >> shift);
    }
  }
}

void push(LevelPoints& out, double x, double weight) {
  if (!out.points.empty() && x <= out.points.back()) {
    out.weights.back() += weight;
  } else {
    out.points.push_back(x);
    out.weights.push_back(weight);
  }
}

}  // namespace

void unpack_counts(uint64_t* packed, const LevelBins& b) {
  for (size_t c = 0; c < b.columns; ++c) {
    for (size_t i = 0; i < b.bins; ++i) {
      const size_t at = c * b.bins + i;
      b.counts[at] += static_cast<int64_t>(packed[at] / kLevelOne);
      if (!b.next_to_zero(c, i)) b.sums[at] += static_cast<int64_t>(packed[at] % kLevelOne);
    }
  }
  std::fill(packed, packed + b.columns * b.bins, uint64_t{0});
}

bool add_bins(const LevelBins& b, const LevelBins& other) {
  const auto bins = static_cast<int64_t>(b.bins);
  for (const bool check : {true, false}) {
    for (size_t c = 0; c < b.columns; ++c) {
      const int64_t shift = static_cast<int64_t>(b.exponent[c]) - other.exponent[c];
      if (shift < 0) return false;
      const int64_t* const counts = other.counts + c * other.bins;
      int64_t first = 0, end = static_cast<int64_t>(other.bins);
      while (first < end && counts[first] == 0) ++first;
      while (first < end && counts[end - 1] == 0) --end;
      if (first == end) continue;
      const int64_t from = other.origin[c] - b.origin[c];  // where bins are as wide
      if (check) {  // the others lie between those
        const int64_t low = coarser(other.origin[c] + first, shift) - b.origin[c];
        const int64_t high = coarser(other.origin[c] + end - 1, shift) - b.origin[c];
        if (low < 0 || high >= bins) return false;
      } else if (shift == 0) {
        add_equal(b, other, c, first, end, from);
      } else {
        add_narrower(b, other, c, first, end, shift);
      }
    }
  }
  return true;
}

void find_points(const LevelBins& b, const LevelFacts& facts, size_t c, LevelPoints& out) {
  const double low = facts.low[c], high = facts.high[c];
  const int exponent = b.exponent[c];
  const Place first(low, exponent), last(high, exponent);
  out.base = first.bin;
  out.points.clear();
  out.weights.clear();
  const auto unit = static_cast<double>(kUnit), base = static_cast<double>(first.bin);
  const double from = std::ldexp(low, -exponent) - base, to = std::ldexp(high, -exponent) - base;
  push(out, from, 1);
  if (!(low < high)) return;
  // One value at each end is taken out of its bin, for it lies there exactly.
  const int64_t zeros = facts.zeros[c] - (low == 0) - (high == 0);
  for (int64_t k = first.bin; k <= last.bin; ++k) {
    const int64_t i = k - b.origin[c];
    if (i < 0 || i >= static_cast<int64_t>(b.bins)) continue;
    const size_t at = c * b.bins + static_cast<size_t>(i);
    int64_t count = b.counts[at], sum = b.sums[at];
    for (const Place& end : {first, last}) {
      count -= end.bin == k;
      sum -= end.bin == k ? end.offset : 0;
    }
    const double edge = static_cast<double>(k - first.bin);
    double x = edge + 0.5;
    if (k == 0 && zeros > 0) {
      push(out, edge, static_cast<double>(zeros));
      count -= zeros;
    }
    if (count <= 0) continue;
    if (k != 0 && k != -1) x = edge + static_cast<double>(sum) / static_cast<double>(count) / unit;
    push(out, std::min(std::max(x, from), to), static_cast<double>(count));
  }
  push(out, to, 1);
}

void histogram_levels(const LevelBins& b, const LevelFacts& facts, size_t count, double* levels) {
  LevelSolver solver;
  LevelPoints p;
  std::vector<int32_t> chosen(count);
  for (size_t c = 0; c < b.columns; ++c) {
    find_points(b, facts, c, p);
    solver.solve(p.points.data(), p.weights.data(), p.points.size(), count, chosen.data());
    const auto end = static_cast<int32_t>(p.points.size()) - 1;
    for (size_t i = 0; i < count; ++i) {
      const double x = static_cast<double>(p.base) + p.points[static_cast<size_t>(chosen[i])];
      const double level = std::min(std::max(std::ldexp(x, b.exponent[c]), facts.low[c]), facts.high[c]);
      levels[c * count + i] = chosen[i] == 0 ? facts.low[c] : chosen[i] == end ? facts.high[c] : level;
    }
  }
}

void histogram_variance(const LevelBins& b, const LevelFacts& facts, const double* levels,
                        size_t count, double* variance) {
  LevelPoints p;
  for (size_t c = 0; c < b.columns; ++c) {
    find_points(b, facts, c, p);
    const auto level = [&](size_t i) {
      return std::ldexp(levels[c * count + i], -b.exponent[c]) - static_cast<double>(p.base);
    };
    double sum = 0, rows = 0;
    size_t right = 1;
    for (size_t i = 0; i < p.points.size(); ++i) {
      const double x = p.points[i];
      while (right + 1 < count && level(right) < x) ++right;
      const double area = (level(right) - x) * (x - level(right - 1));
      sum += p.weights[i] * std::max(area, 0.0);
      rows += p.weights[i];
    }
    variance[c] = std::ldexp(sum / rows, 2 * b.exponent[c]);
  }
}

}  // namespace zipml
