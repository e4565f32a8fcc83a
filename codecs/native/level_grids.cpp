// Levels of least rounding variance on a grid, from histograms.
//
// A value between two places of the grid is split among both, with the weights that keep its mean.
// For any levels on the grid, that adds the same to the cost, namely w share (1 - share): the best
// levels for the split weights are the best for the values, and all of them are places that have
// weight. So the solver for values serves as it is, and is exact.
#include <algorithm>
#include <cmath>

#include "optimal_levels.hpp"

namespace zipml {
namespace {

// Weighted sums over values at `t`, in steps of the grid.
struct GridValues {
  int64_t top;
  std::vector<double> weight;  // of each place
  double values = 0, apart = 0, uniform = 0, first = 0, second = 0;

  void add(double t, double w, double intervals) {
    t = std::min(std::max(t, 0.0), static_cast<double>(top));
    const auto place = std::min(static_cast<int64_t>(t), top - 1);
    const double share = t - static_cast<double>(place);
    weight[static_cast<size_t>(place)] += w * (1 - share);
    weight[static_cast<size_t>(place) + 1] += w * share;
    apart += w * share * (1 - share);
    const double x = t / static_cast<double>(top), step = x * intervals, inside = step - std::floor(step);
    uniform += w * inside * (1 - inside) / (intervals * intervals);
    first += w * x;
    second += w * x * x;
    values += w;
  }
};

}  // namespace

void grid_levels(const LevelBins& b, const LevelFacts& facts, const double* at, const double* more,
                 size_t count, int64_t top, uint16_t* places, const GridCosts& costs) {
  LevelSolver solver;
  LevelPoints p;
  std::vector<double> points, weights;
  std::vector<int32_t> chosen(count);
  const auto last = static_cast<double>(top), intervals = static_cast<double>(count - 1);
  for (size_t c = 0; c < b.columns; ++c) {
    uint16_t* out = places + c * count;
    std::fill(out, out + count, static_cast<uint16_t>(top));
    out[0] = 0;
    costs.found[c] = costs.uniform[c] = costs.spread[c] = 0;
    find_points(b, facts, c, p);
    if (p.points.size() < 2) continue;
    GridValues values{top, std::vector<double>(static_cast<size_t>(top) + 1)};
    const double from = p.points.front(), range = p.points.back() - from;
    for (size_t i = 0; i < p.points.size(); ++i) {
      values.add((p.points[i] - from) / range * last, p.weights[i], intervals);
    }
    if (more[c] > 0) {
      const double x = std::ldexp(at[c], -b.exponent[c]) - static_cast<double>(p.base);
      values.add((x - from) / range * last, more[c], intervals);
    }
    points.clear();
    weights.clear();
    for (int64_t k = 0; k <= top; ++k) {
      const double w = values.weight[static_cast<size_t>(k)];
      if (w == 0 && k > 0 && k < top) continue;
      points.push_back(static_cast<double>(k));
      weights.push_back(w);
    }
    solver.solve(points.data(), weights.data(), points.size(), count, chosen.data());
    for (size_t j = 0; j < count; ++j) out[j] = static_cast<uint16_t>(points[static_cast<size_t>(chosen[j])]);
    double cost = 0;
    size_t right = 1;
    for (size_t i = 1; i + 1 < points.size(); ++i) {
      while (out[right] < points[i]) ++right;
      cost += weights[i] * (out[right] - points[i]) * (points[i] - out[right - 1]);
    }
    const double mean = values.first / values.values;
    costs.found[c] = (cost + values.apart) / values.values / (last * last);
    costs.uniform[c] = values.uniform / values.values;
    costs.spread[c] = std::max(values.second / values.values - mean * mean, 0.0);
  }
}

}  // namespace zipml
