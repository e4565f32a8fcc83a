// Rounding of one block: the 64 rows of a tile in kLanes columns.
#pragma once

#include <type_traits>

#include "core.hpp"
#include "column_lanes.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

// From where on a step is many times what the rounding of a level may shift it by, in parts of the
// largest level. Levels are then in order and well apart, the nearest one is found at once or
// missed by very little, and a value's share of its interval is below one.
template <class T, class Round>
struct WideStep;
template <>
struct WideStep<float, Keep> {
  static constexpr float relative = 0x1p-16f, absolute = 0;
};
template <>
struct WideStep<float, ToHalf> {  // halves have 11 digits, and none below 2^-24
  static constexpr float relative = 0x1p-9f, absolute = 0x1p-22f;
};
template <>
struct WideStep<double, Keep> {
  static constexpr double relative = 0x1p-45, absolute = 0;
};

// Grids as arrays, one entry a column (or a row, for row scales), with room for a whole block or
// tile at the end.
template <class T>
struct GridTable {
  Buffer<T> lower, upper;                   // as given
  Buffer<T> lo, hi, step, inverse, factor;  // see Grid
  Buffer<bool> careful;                     // steps are narrow, or there is a factor
  Buffer<double> step_as_read;              // for row scales: step / factor
  T top;                                    // the last code

  template <class Round>
  ZIPML_INLINE void fill(Scales<T> scales, size_t count, int32_t intervals, Round) {
    const size_t room = count + kTileRows;
    for (Buffer<T>* b : {&lower, &upper, &lo, &hi, &step, &inverse, &factor}) b->reset(room);
    careful.reset(room);
    step_as_read.reset(scales.by_row ? room : 0);
    top = static_cast<T>(intervals);
    for (size_t i = 0; i < room; ++i) {
      if (i < count) {
        upper[i] = scales.upper[i];
        lower[i] = scales.by_row ? T(0) - upper[i] : scales.lower[i];
      }
      if (!(lower[i] < upper[i])) {
        // One value, whose code is zero and does not vary. Any levels beyond it will do.
        lo[i] = lower[i];
        step[i] = std::fabs(lower[i]) + T(1);
        hi[i] = lower[i] + step[i];
        factor[i] = T(1);
        continue;
      }
      const Grid<T, Round> grid(lower[i], upper[i], intervals);
      lo[i] = grid.lo;
      hi[i] = grid.hi;
      step[i] = grid.step;
      inverse[i] = grid.inverse;
      factor[i] = grid.factor;
      if (scales.by_row) step_as_read[i] = static_cast<double>(grid.step) / grid.factor;
      using Wide = WideStep<T, Round>;
      const T largest = std::fmax(std::fabs(lower[i]), std::fabs(upper[i]));
      careful[i] = grid.factor != T(1) || grid.step < largest * Wide::relative || grid.step < Wide::absolute;
    }
  }

  // Repeats the entries of the last `width` columns as often as they go into kLanes lanes. Returns
  // the number of the first of these entries.
  ZIPML_INLINE size_t repeat_last(size_t count, size_t width) {
    const size_t at = count + kLanes;
    for (size_t lane = 0; lane < kLanes / width * width; ++lane) {
      const size_t from = count - width + lane % width;
      for (Buffer<T>* b : {&lower, &upper, &lo, &hi, &step, &inverse, &factor}) {
        (*b)[at + lane] = (*b)[from];
      }
      careful[at + lane] = careful[from];
    }
    return at;
  }

  ZIPML_INLINE bool any_careful(size_t first, size_t count) const {
    bool found = false;
    for (size_t i = first; i < first + count; ++i) found |= careful[i];
    return found;
  }
};

// Numbers so large that adding one rounds to a whole number (`whole`) or to a multiple of 2^-16
// (`units`), ties to even, as rint does, and leaves that integer in the low bits. Their low bits
// are such that the two of a value add up to its position (docs/format.md), but for bits above
// those of any code.
template <class T>
struct Magic;
template <>
struct Magic<float> {
  static constexpr float whole = 12582912.0f - 2, units = 130.0f;
};
template <>
struct Magic<double> {
  static constexpr double whole = 6755399441055744.0 - 2, units = 68719476736.0 + 2;
};

// The position of a value in two parts: code << 16, plus `units`, is the position.
struct Place {
  Words code, units;
};

template <class T, class Round, bool Careful>
struct LaneGrid {
  using V = typename LanesOf<T>::type;
  V lower, upper, lo, hi, step, inverse, factor, top;

  // Scaled level of a code, which is never below -1. Code n + 1 is only asked for where any level
  // beyond the last will do.
  ZIPML_INLINE V level(V code) const {
    if constexpr (Careful) {
      const V x = ((lo + code * step) / factor) * factor;  // a denormal has fewer digits
      return limited(LevelRounding<Round>::level(x), code, top, hi);
    } else if constexpr (std::is_same_v<Round, Keep>) {
      return sum_or_top(lo, code * step, code, top, hi);
    } else {
      return sum_or_top(LevelRounding<Round>::level(lo + code * step), -V{}, code, top, hi);
    }
  }

  // Values beyond the bounds are marked, and what comes of them is not used.
  ZIPML_INLINE void mark(V value, Beyond& beyond) const { look(beyond, value, lower, upper); }

  ZIPML_INLINE V scaled(V value) const { return Careful ? value * factor : value; }
  // The nearest code, or one beside it, and the magic number.
  ZIPML_INLINE V whole(V x) const { return (x - lo) * inverse + spread(Magic<T>::whole); }
  // Distance of the levels of two neighbouring codes, `near` being that of `code`.
  ZIPML_INLINE V gap(V code, V near, V away) const {
    return level(code + with_sign(spread(T(1)), away)) - near;
  }
  ZIPML_INLINE Words units(V away, V gap) const {
    if constexpr (Careful) {
      // Levels may coincide: 0 / 0 is 0.
      const V share = lesser(greater(away / gap, spread(T(0))), spread(T(1)));
      return low_words(with_sign(share, away) + spread(Magic<T>::units));
    } else {
      return low_words(away / magnitude(gap) + spread(Magic<T>::units));
    }
  }
};

// Where the values of some rows lie: what is known of them before the division.
template <class T>
struct Intervals {
  typename LanesOf<T>::type away, gap;  // from the nearest level; to the one on the value's other side
  Words code;
};

// kRows rows step by step side by side.
template <size_t kRows, class T, class Grid>
ZIPML_INLINE void find_intervals(const Grid* grids, const T* values, ptrdiff_t stride, Beyond& beyond, Intervals<T>* out) {
  using V = typename LanesOf<T>::type;
  V x[kRows], code[kRows], near[kRows];
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) x[i] = load(values + static_cast<ptrdiff_t>(i) * stride);
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) grids[i].mark(x[i], beyond);
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) x[i] = grids[i].scaled(x[i]);
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) code[i] = grids[i].whole(x[i]);
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) out[i].code = low_words(code[i]);
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) code[i] = code[i] - spread(Magic<T>::whole);
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) near[i] = grids[i].level(code[i]);
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) out[i].away = x[i] = x[i] - near[i];
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) out[i].gap = grids[i].gap(code[i], near[i], x[i]);
}

template <class T, class Round, bool Careful>
ZIPML_INLINE LaneGrid<T, Round, Careful> column_grid(const GridTable<T>& g, size_t c) {
  return {load(g.lower.data() + c), load(g.upper.data() + c),   load(g.lo.data() + c),
          load(g.hi.data() + c),    load(g.step.data() + c),    load(g.inverse.data() + c),
          load(g.factor.data() + c), spread(g.top)};
}
template <class T, class Round, bool Careful>
ZIPML_INLINE LaneGrid<T, Round, Careful> row_grid(const GridTable<T>& g, size_t r) {
  return {spread(g.lower[r]), spread(g.upper[r]),   spread(g.lo[r]),     spread(g.hi[r]),
          spread(g.step[r]),  spread(g.inverse[r]), spread(g.factor[r]), spread(g.top)};
}

// Sums p (65536 - p) for every column of a tile, that is 2^30 - (p - 32768)^2. The sum takes up to
// 36 bits: `squares` gives the lower 32, and `rest`, the sum of ceil(p (65536 - p) / 65536),
// exceeds it by less than 2^22 and gives the others.
struct VarianceLanes {
  Words squares{}, rest{};

  ZIPML_INLINE void add(Halves p, Halves p_less_square) {
    const Halves centred = p ^ spread_half(0x8000);
    squares = add_products(squares, centred, centred);
    rest = add_products(rest, p_less_square, spread_half(1));
  }
  ZIPML_INLINE void add_to(uint64_t* sums, size_t columns) const {
    uint32_t low[kLanes], high[kLanes];
    std::memcpy(low, &squares, sizeof low);
    std::memcpy(high, &rest, sizeof high);
    for (size_t c = 0; c < columns; ++c) {
      const uint64_t above = static_cast<uint64_t>(high[c]) << 16;
      sums[c] += above - static_cast<uint32_t>(static_cast<uint32_t>(above) + low[c]);
    }
  }
};

// One term of the variance of row scales.
ZIPML_INLINE Doubles row_term(Words p, double step) {
  const Doubles q = to_doubles(p) * spread(0x1p-16);
  const Doubles term = q * (spread(1.0) - q) * spread(step) * spread(step);
  // The step may be infinite, and 0 times that must not become a NaN.
  return {(HalfDoubles)((Quads)(q.a > 0.0) & (Quads)term.a),
          (HalfDoubles)((Quads)(q.b > 0.0) & (Quads)term.b)};
}

// Sum of two samples from one draw: P(2 up) = p^2 (to 2^-16), and the two thresholds, `both` and
// 2 p - both, add up to exactly 2 p, so that the mean stays unbiased to the last bit. The second
// threshold may be 2^16: instead of draw < p + rest, draw - p < rest is looked at, or 0 < rest.
ZIPML_INLINE Halves two_rounded(Halves base, Halves p, Halves both, Halves draw) {
  return plus_less(plus_less(base + base, draw, both), monus(draw, p), p - both);
}

// Rounds a block: rows of values that lie `stride` apart, grids from number `first` on. `words`
// holds the draws and receives the codes, both as draw_tile orders them; bits beyond those of a
// stored code hold anything. The next block will be read at `ahead`, where rows are `ahead_stride`
// bytes apart. Returns whether all values lie within their bounds.
template <class T, class Round, bool Careful, bool ByRow>
__attribute__((noinline)) bool round_block(const T* values, ptrdiff_t stride, const char* ahead,
                                           ptrdiff_t ahead_stride, const GridTable<T>& grids, size_t first, int samples,
                                           Words words[32], size_t columns, uint64_t* variance,
                                           double* row_variance) {
  using Lane = LaneGrid<T, Round, Careful>;
  // Each step of a row waits for the one before it, and a processor holds some sixty that wait: rows go
  // side by side, and the division is kept for a loop of its own. A row of doubles is several vectors,
  // which do as well in one loop.
  constexpr size_t kAhead = sizeof(T) == 8 ? 2 : 16, kSide = ByRow || sizeof(T) == 8 ? 2 : 4;
  Beyond beyond;
  VarianceLanes sums;
  alignas(64) uint32_t up[ByRow ? kTileRows : 1][kLanes];
  const Lane by_column = column_grid<T, Round, Careful>(grids, ByRow ? 0 : first);
  const auto grid = [&](size_t r) -> Lane {
    if constexpr (ByRow) return row_grid<T, Round, Careful>(grids, first + r);
    return by_column;
  };
  for (size_t begin = 0; begin < kTileRows; begin += kAhead) {
    Intervals<T> rows[kAhead];
    for (size_t i = 0; i < kAhead; i += kSide) {
      Lane side[kSide];
      for (size_t k = 0; k < kSide; ++k) side[k] = grid(begin + i + k);
      find_intervals<kSide>(side, values + static_cast<ptrdiff_t>(begin + i) * stride, stride, beyond, rows + i);
    }
    for (size_t i = 0; i < kAhead; i += 2) {
      const size_t r = begin + i;
      // Rows need not be aligned: both the line that one begins in and the one that it ends in.
      const char* next = ahead + static_cast<ptrdiff_t>(r) * ahead_stride;
      for (size_t byte = 0; byte < sizeof(T) * kLanes; byte += 64) {
        prefetch(next + byte);
        prefetch(next + ahead_stride + byte);
      }
      prefetch(next + sizeof(T) * kLanes - 1);
      prefetch(next + ahead_stride + sizeof(T) * kLanes - 1);
      const Place even = {rows[i].code, grid(r).units(rows[i].away, rows[i].gap)};
      const Place odd = {rows[i + 1].code, grid(r + 1).units(rows[i + 1].away, rows[i + 1].gap)};
      const Words units = low_halves(even.units, odd.units);
      const Halves base = (Halves)low_halves(even.code, odd.code) + (Halves)high_halves(even.units, odd.units);
      const Halves p = (Halves)units, both = product_high(p, p);
      if constexpr (ByRow) {
        const Words low = units & 0xFFFFu, high = units >> 16;
        std::memcpy(up[r], &low, sizeof low);
        std::memcpy(up[r + 1], &high, sizeof high);
      } else {
        sums.add(p, p - both);
      }
      const Halves draw = (Halves)words[r / 2];
      words[r / 2] = (Words)(samples == 1 ? plus_less(base, draw, p) : two_rounded(base, p, both, draw));
    }
  }
  if constexpr (ByRow) {
    if (row_variance) {
      Doubles sum = spread(0.0);  // in the order of rows
      for (size_t r = 0; r < kTileRows; ++r) {
        sum = sum + row_term(load_as<Words>(up[r]), grids.step_as_read[first + r]);
      }
      double lanes[kLanes];
      store(lanes, sum);
      for (size_t c = 0; c < columns; ++c) row_variance[c] += lanes[c];
    }
  } else if (variance) {
    sums.add_to(variance, columns);
  }
  return !beyond.any();
}

}  // namespace
}  // namespace ZIPML_ISA
}  // namespace zipml
