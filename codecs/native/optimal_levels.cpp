#include "optimal_levels.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels.hpp"

namespace zipml {
namespace {

// More choices than this are not kept at once: the problem is halved first.
constexpr int64_t kMostChoices = int64_t{1} << 24;

// A sum that keeps what rounding takes away (Neumaier).
struct ExactSum {
  double sum = 0, rest = 0;
  void add(double x) {
    const double next = sum + x;
    rest += std::fabs(sum) >= std::fabs(x) ? (sum - next) + x : (x - next) + sum;
    sum = next;
  }
  double value() const { return sum + rest; }
};

}  // namespace

// With prefix sums W, S and Q of the weights, first and second moments, the cost of an interval from
// point j to point k is
//   (x_k + x_j) (S_k - S_j) - (Q_k - Q_j) - x_j x_k (W_k - W_j)
//     = [Q_j - x_j S_j] + x_k [x_j W_j - S_j] + x_j [S_k - x_k W_k] + [x_k S_k - Q_k].
// Positions and sums are counted from the median outwards, so that far outliers, which go into the
// last of the sums only, leave the digits of the bulk alone.
void LevelSolver::prepare(const double* points, const double* weights, size_t count) {
  const size_t padded = count + static_cast<size_t>(kLevelPadding);
  for (auto* v : {&position_, &weight_sum_, &sum_, &by_row_, &column_part_, &by_column_, &row_part_,
                  &cost_, &before_, &static_part_}) {
    v->assign(padded, 0.0);
  }
  ExactSum total, half;
  for (size_t i = 0; i < count; ++i) total.add(weights[i]);
  size_t median = 0;
  for (half.add(weights[0]); median + 1 < count && 2 * half.value() < total.value();) {
    half.add(weights[++median]);
  }
  for (size_t i = 0; i < count; ++i) position_[i] = points[i] - points[median];
  const auto set = [&](size_t i, double w, double s, double q) {
    const double x = position_[i];
    weight_sum_[i] = w;
    sum_[i] = s;
    by_row_[i] = x * w - s;
    column_part_[i] = q - x * s;
    by_column_[i] = s - x * w;
    row_part_[i] = x * s - q;
  };
  ExactSum w, s, q;
  for (size_t i = median + 1; i < count; ++i) {
    const double x = position_[i], first = weights[i] * x;
    w.add(weights[i]);
    s.add(first);
    q.add(first * x);
    set(i, w.value(), s.value(), q.value());
  }
  w = s = q = ExactSum();
  for (size_t i = median; i-- > 0;) {
    const double x = position_[i + 1], first = weights[i + 1] * x;
    w.add(-weights[i + 1]);
    s.add(-first);
    q.add(-first * x);
    set(i, w.value(), s.value(), q.value());
  }
}

// The cost of the one interval from `first` to k; nothing if that is empty, whatever rounding says.
double LevelSolver::start(int64_t first, int64_t k) const {
  if (k == first + 1) return 0;
  const auto j = static_cast<size_t>(first), i = static_cast<size_t>(k);
  return ((column_part_[j] + position_[i] * by_row_[j]) + position_[j] * by_column_[i]) + row_part_[i];
}

// Rows and columns, and what comes out in `from`, are counted from point `first`.
void LevelSolver::layer(int64_t first, int64_t first_row, int64_t last_row, int64_t first_column,
                        int32_t* from) {
  for (int64_t j = first + first_column; j < first + last_row; ++j) {
    const auto i = static_cast<size_t>(j);
    static_part_[i] = cost_[i] + column_part_[i];
  }
  std::swap(cost_, before_);
  const LevelLayer task{position_.data() + first, static_part_.data() + first, by_row_.data() + first,
                        by_column_.data() + first, row_part_.data() + first, before_.data() + first,
                        cost_.data() + first, from};
  kernels().level_layer(task, first_row, last_row, first_column);
}

// Chooses the ends of `intervals` intervals from point `first` to point `last`: chosen[0] is the
// first and chosen[intervals] the last. Layer t knows, for each k, the least cost of t intervals
// from `first` to k; the last layer needs it for one k only.
void LevelSolver::split(int64_t first, int64_t last, int64_t intervals, int32_t* chosen) {
  chosen[0] = static_cast<int32_t>(first);
  chosen[intervals] = static_cast<int32_t>(last);
  if (intervals < 2) return;
  const int64_t width = last - first + 1;
  for (int64_t k = first + 1; k <= last; ++k) cost_[static_cast<size_t>(k)] = start(first, k);
  const bool keep_all = width * (intervals - 1) <= kMostChoices || intervals == 2;
  const int64_t half = intervals / 2;
  from_.resize(static_cast<size_t>(keep_all ? width * (intervals - 1) : width));
  if (!keep_all) {
    middle_.resize(static_cast<size_t>(width));
    next_middle_.resize(static_cast<size_t>(width));
    for (int64_t k = 0; k < width; ++k) middle_[static_cast<size_t>(k)] = static_cast<int32_t>(k);
  }
  for (int64_t t = 2; t <= intervals; ++t) {
    const int64_t row = t == intervals ? width - 1 : t;
    int32_t* from = from_.data() + (keep_all ? (t - 2) * width : 0);
    layer(first, row, width - 1, t - 1, from);
    if (keep_all || t <= half) continue;
    for (int64_t k = row; k < width; ++k) {
      next_middle_[static_cast<size_t>(k)] = middle_[static_cast<size_t>(from[k])];
    }
    std::swap(middle_, next_middle_);
  }
  if (!keep_all) {  // where the optimum passes half of the intervals; each part is such a problem
    const int64_t at = first + middle_[static_cast<size_t>(width - 1)];
    split(first, at, half, chosen);
    split(at, last, intervals - half, chosen + half);
    return;
  }
  for (int64_t t = intervals; t >= 2; --t) {
    const int64_t k = chosen[t] - first;
    chosen[t - 1] = static_cast<int32_t>(first + from_[static_cast<size_t>((t - 2) * width + k)]);
  }
}

void LevelSolver::solve(const double* points, const double* weights, size_t count, size_t levels,
                        int32_t* chosen) {
  if (count <= levels) {
    for (size_t i = 0; i < levels; ++i) chosen[i] = static_cast<int32_t>(std::min(i, count - 1));
    return;
  }
  prepare(points, weights, count);
  split(0, static_cast<int64_t>(count) - 1, static_cast<int64_t>(levels) - 1, chosen);
}

}  // namespace zipml
