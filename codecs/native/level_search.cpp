// What finding levels spends its time in: a layer of the dynamic programme, and counting values
// into bins. optimal_levels.hpp says what they are for.
#include <cmath>
#include <type_traits>

#include "native.hpp"
#include "working.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kWide = 64;
#elif defined(__AVX2__)
constexpr int kWide = 32;
#else
constexpr int kWide = 16;
#endif
constexpr int64_t kDoubles = kWide / 8;
typedef double Doubles __attribute__((vector_size(kWide)));
typedef double UnalignedDoubles __attribute__((vector_size(kWide), aligned(8)));

ZIPML_INLINE Doubles at(const double* p) { return *reinterpret_cast<const UnalignedDoubles*>(p); }
ZIPML_INLINE Doubles all(double x) { return x - Doubles{}; }
ZIPML_INLINE Doubles count_up(double from) {
  Doubles out;
  for (int64_t i = 0; i < kDoubles; ++i) out[i] = from + static_cast<double>(i);
  return out;
}

constexpr int64_t kRowsTogether = 16;
static_assert(kRowsTogether <= kLevelPadding, "whole vectors of rows are read");

ZIPML_INLINE double sum_of(const LevelLayer& l, int64_t k, int64_t j) {
  return (l.static_part[j] + l.position[k] * l.by_row[j]) + l.position[j] * l.by_column[k];
}

// An interval with nothing inside costs nothing: no sum of large numbers is asked.
ZIPML_INLINE int64_t keep(const LevelLayer& l, int64_t k, double best, int64_t where) {
  const double sum = best + l.row_part[k], empty = l.before[k - 1];
  l.cost[k] = sum < empty ? sum : empty;
  where = sum < empty ? where : k - 1;
  l.from[k] = static_cast<int32_t>(where);
  return where;
}

// Row k over columns first..last. The leftmost of equal columns counts, with any number of lanes.
ZIPML_INLINE int64_t search_row(const LevelLayer& l, int64_t k, int64_t first, int64_t last) {
  double best = HUGE_VAL;
  int64_t where = first, j = first;
  if (last - first >= 4 * kDoubles) {
    // Two chains of comparisons, for each waits for its last.
    Doubles low = all(HUGE_VAL), place = all(0), here = count_up(static_cast<double>(first));
    Doubles low_too = low, place_too = place;
    const Doubles x = all(l.position[k]), c = all(l.by_column[k]);
    const auto sums = [&](int64_t i) {
      return (at(l.static_part + i) + x * at(l.by_row + i)) + at(l.position + i) * c;
    };
    for (; j + 2 * kDoubles <= last + 1; j += 2 * kDoubles) {
      const Doubles sum = sums(j), sum_too = sums(j + kDoubles);
      place = sum < low ? here : place;
      low = sum < low ? sum : low;
      place_too = sum_too < low_too ? here : place_too;
      low_too = sum_too < low_too ? sum_too : low_too;
      here += static_cast<double>(2 * kDoubles);
    }
    place_too += static_cast<double>(kDoubles);
    const auto take = [&](double sum, double column) {
      const int64_t i = static_cast<int64_t>(column);
      if (sum < best || (sum == best && i < where)) {
        best = sum;
        where = i;
      }
    };
    for (int64_t i = 0; i < kDoubles; ++i) take(low[i], place[i]);
    for (int64_t i = 0; i < kDoubles; ++i) take(low_too[i], place_too[i]);
  }
  for (; j <= last; ++j) {
    const double sum = sum_of(l, k, j);
    if (sum < best) {
      best = sum;
      where = j;
    }
  }
  return keep(l, k, best, where);
}

// A few neighbouring rows at once, each in a lane.
ZIPML_INLINE void search_rows(const LevelLayer& l, int64_t first_row, int64_t last_row, int64_t first,
                              int64_t last) {
  for (int64_t k = first_row; k <= last_row; k += kDoubles) {
    const Doubles x = at(l.position + k), c = at(l.by_column + k);
    const Doubles row = count_up(static_cast<double>(k));
    Doubles low = all(HUGE_VAL), place = all(static_cast<double>(first));
    const int64_t end = least(last, k + kDoubles - 3);
    for (int64_t j = first; j <= end; ++j) {
      const Doubles sum = (all(l.static_part[j]) + x * all(l.by_row[j])) + all(l.position[j]) * c;
      const Doubles here = all(static_cast<double>(j));
      const auto better = (sum < low) & (here < row - 1.0);
      low = better ? sum : low;
      place = better ? here : place;
    }
    for (int64_t i = 0; i < kDoubles && k + i <= last_row; ++i) {
      keep(l, k + i, low[i], static_cast<int64_t>(place[i]));
    }
  }
}

// The best column grows with the row: the middle row halves the search for the others.
void search(const LevelLayer& l, int64_t first_row, int64_t last_row, int64_t first, int64_t last) {
  while (last_row - first_row >= kRowsTogether) {
    const int64_t middle = first_row + (last_row - first_row) / 2;
    const int64_t best = search_row(l, middle, first, least(last, middle - 2));
    search(l, first_row, middle - 1, first, best);
    first_row = middle + 1;
    first = best;
  }
  if (first_row <= last_row) search_rows(l, first_row, last_row, first, last);
}

// Bits of a double that are kept: kLevelDigits digits, so that a value is a whole number of the
// units of every bin but those next to zero.
constexpr uint64_t kKept = ~((uint64_t{1} << (53 - kLevelDigits)) - 1);
constexpr double kWhole = 0x1p52;  // added, it leaves a whole number in the lowest bits

template <class In>
ZIPML_INLINE double kept(In value) {
  if constexpr (std::is_same_v<In, double>) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits &= kKept;
    std::memcpy(&value, &bits, sizeof bits);
    return value;
  } else {
    return static_cast<double>(as_working(value));
  }
}

// The bits of 2^52 + (bin << kLevelDigits | offset).
ZIPML_INLINE uint64_t place_bits(double x, double scale, double shift, double limit) {
  double t = x * scale;
  const double near_zero = x < 0 ? -1.0 : 0.0;
  t = std::fabs(t) < 1.0 ? near_zero : t;
  t -= shift;
  t = t > 0 ? t : 0;  // another thread may have changed the values since their bounds were found
  t = t < limit ? t : limit;
  t += kWhole;
  uint64_t bits;
  std::memcpy(&bits, &t, sizeof bits);
  return bits;
}

ZIPML_INLINE void count_one(uint64_t* bins, uint64_t bits) {
  constexpr uint64_t digits = uint64_t{1} << kLevelDigits;
  const uint64_t place = bits & ((uint64_t{1} << 52) - 1);
  bins[place >> kLevelDigits] += kLevelOne | (place & (digits - 1));
}

// Counts some values of one column, of which `distance` is the distance.
template <class In>
ZIPML_INLINE void count_column(const In* values, size_t rows, ptrdiff_t distance, size_t column,
                               const LevelCounters& counters) {
  constexpr size_t kSide = 16;
  const double limit = std::ldexp(static_cast<double>(counters.bins), kLevelDigits) - 1;
  const double scale = counters.scale[column], shift = counters.shift[column];
  uint64_t* const bins = counters.packed + column * counters.bins;
  uint64_t places[kSide];
  int64_t zeros = 0;
  for (size_t r = 0; r < rows; r += kSide) {
    const size_t count = least(kSide, rows - r);
    const In* from = values + static_cast<ptrdiff_t>(r) * distance;
    In line[kSide] = {};
    if (distance == 1 && count == kSide) {
      std::memcpy(line, from, sizeof line);
    } else {
      for (size_t i = 0; i < count; ++i) line[i] = from[static_cast<ptrdiff_t>(i) * distance];
    }
    for (size_t i = 0; i < kSide; ++i) {
      const double x = kept(line[i]);
      places[i] = place_bits(x, scale, shift, limit);
      zeros += x == 0 ? 1 : 0;
    }
    zeros -= static_cast<int64_t>(kSide - count);
    for (size_t i = 0; i < count; ++i) count_one(bins, places[i]);
  }
  counters.zeros[column] += zeros;
}

typedef uint32_t Four __attribute__((vector_size(16)));

// Turns four rows of 16 floats into four numbers of each of 16 columns.
ZIPML_INLINE void turn_four(const float* rows, ptrdiff_t row_stride, float* columns, size_t stride) {
  for (size_t i = 0; i < 16; i += 4) {
    Four a, b, c, d;
    std::memcpy(&a, rows + i, sizeof a);
    std::memcpy(&b, rows + row_stride + static_cast<ptrdiff_t>(i), sizeof b);
    std::memcpy(&c, rows + 2 * row_stride + static_cast<ptrdiff_t>(i), sizeof c);
    std::memcpy(&d, rows + 3 * row_stride + static_cast<ptrdiff_t>(i), sizeof d);
    const Four ac = __builtin_shuffle(a, c, Four{0, 4, 1, 5}), AC = __builtin_shuffle(a, c, Four{2, 6, 3, 7});
    const Four bd = __builtin_shuffle(b, d, Four{0, 4, 1, 5}), BD = __builtin_shuffle(b, d, Four{2, 6, 3, 7});
    const Four out[4] = {__builtin_shuffle(ac, bd, Four{0, 4, 1, 5}), __builtin_shuffle(ac, bd, Four{2, 6, 3, 7}),
                         __builtin_shuffle(AC, BD, Four{0, 4, 1, 5}), __builtin_shuffle(AC, BD, Four{2, 6, 3, 7})};
    for (size_t j = 0; j < 4; ++j) std::memcpy(columns + (i + j) * stride, &out[j], sizeof out[j]);
  }
}

template <class In>
ZIPML_INLINE void count_any(Matrix<const In> m, const LevelCounters& counters) {
  if (m.column_stride != 1) {
    for (size_t c = 0; c < m.columns; ++c) {
      count_column(m.data + static_cast<ptrdiff_t>(c) * m.column_stride, m.rows, m.row_stride, c, counters);
    }
    return;
  }
  // Rows are turned into columns, a cache line of some rows at a time: the bins of one column fit
  // the nearest cache, those of several do not.
  constexpr size_t kSide = 64 / sizeof(In), kBlock = 2048, kStride = kBlock + 64 / sizeof(In);
  Buffer<In> turned(kSide * kStride);
  for (size_t from = 0; from < m.rows; from += kBlock) {
    const size_t rows = least(kBlock, m.rows - from);
    for (size_t c = 0; c < m.columns; c += kSide) {
      const size_t count = least(kSide, m.columns - c);
      const In* block = m.data + static_cast<ptrdiff_t>(from) * m.row_stride + c;
      size_t r = 0;
      if constexpr (std::is_same_v<In, float>) {
        for (; count == kSide && r + 4 <= rows; r += 4) {
          turn_four(block + static_cast<ptrdiff_t>(r) * m.row_stride, m.row_stride, turned.data() + r, kStride);
        }
      }
      for (; r < rows; ++r) {
        const In* row = block + static_cast<ptrdiff_t>(r) * m.row_stride;
        if (count == kSide) {
          for (size_t i = 0; i < kSide; ++i) turned[i * kStride + r] = row[i];
        } else {
          for (size_t i = 0; i < count; ++i) turned[i * kStride + r] = row[i];
        }
      }
      for (size_t i = 0; i < count; ++i) count_column(turned.data() + i * kStride, rows, 1, c + i, counters);
    }
  }
}

}  // namespace

void level_layer(const LevelLayer& layer, int64_t first_row, int64_t last_row, int64_t first_column) {
  search(layer, first_row, last_row, first_column, last_row - 2);
}

void count_float(Matrix<const float> m, const LevelCounters& c) { count_any(m, c); }
void count_half(Matrix<const RawHalf> m, const LevelCounters& c) { count_any(m, c); }
void count_double(Matrix<const double> m, const LevelCounters& c) { count_any(m, c); }

}  // namespace ZIPML_ISA
}  // namespace zipml
