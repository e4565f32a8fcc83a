// Values of stored codes, 16 at a time: the arithmetic of Grid (grid.hpp), laid out for vectors.
//
// A line is 16 codes that become 16 values next to each other. Its lanes are the columns of a row
// or the rows of a column, so the bounds change from lane to lane, from line to line, or both.
#pragma once

#include <type_traits>

#include "isa.hpp"
#include "grid.hpp"
#include "unpack.hpp"

namespace zipml {
namespace ZIPML_ISA {

// The grids of some columns or rows, one array for each of their numbers.
template <class T>
class Levels {
 public:
  T *lo, *hi, *step;          // of the values times `factor`
  T *factor, *unscale;        // and its inverse: a power of two, so that both are exact
  T *lower, *upper;

  explicit Levels(size_t count) {
    const size_t padded = (count + kLanes - 1) / kLanes * kLanes;
    numbers_.reset(7 * padded);
    plain_.reset(padded);
    T* next = numbers_.data();
    for (T** part : {&lo, &hi, &step, &factor, &unscale, &lower, &upper}) {
      *part = next;
      next += padded;
    }
    for (size_t i = 0; i < padded; ++i) plain_[i] = 1;
  }

  template <class Round>
  ZIPML_INLINE void set(size_t i, T lower_bound, T upper_bound, int32_t intervals) {
    const Grid<T, Round> grid(lower_bound, upper_bound, intervals);
    const bool zero = lower_bound == T(0) && upper_bound == T(0);
    lo[i] = grid.lo;
    hi[i] = grid.hi;
    step[i] = grid.step;
    factor[i] = grid.factor;
    unscale[i] = T(1) / grid.factor;
    lower[i] = grid.lower;
    upper[i] = grid.upper;
    // Most grids need no care below the last level: nothing to scale, no level beyond the upper
    // bound (levels do not fall from one code to the next: the last but one tells), and no
    // negative zero, which the sum with 0 * step would make positive.
    plain_[i] = (grid.factor == T(1) || zero) && !(lower_bound == T(0) && std::signbit(lower_bound)) &&
                grid.lo + T(intervals - 1) * grid.step <= grid.hi;
  }

  // Whether all of `count` grids from `i` on are plain.
  ZIPML_INLINE bool plain(size_t i, size_t count) const {
    uint8_t all = 1;
    for (size_t k = 0; k < count; ++k) all &= plain_[i + k];
    return all;
  }

 private:
  Buffer<T> numbers_;
  Buffer<uint8_t> plain_;
};

// Values of lines of codes. `Lane` and `Line` say by how many grids each lane and each line moves
// on from grid `first`. For plain grids and codes of eight bits.
template <class T, int Samples, size_t LineStep, size_t LaneStep>
ZIPML_INLINE void plain_lines(const uint8_t* codes, size_t lines, const Levels<T>& levels,
                              size_t first, int32_t intervals, T* out, ptrdiff_t stride) {
  Line<T> lo, hi, step, value, other;
  const uint8_t top = static_cast<uint8_t>(intervals);
  for (size_t i = 0; i < lines; ++i) {
    if (i == 0 || LineStep != 0) {
      const size_t g = first + i * LineStep;
      if (LaneStep) {
        lo.load(levels.lo + g);
        hi.load(levels.hi + g);
        step.load(levels.step + g);
      } else {
        lo.fill(levels.lo[g]);
        hi.fill(levels.hi[g]);
        step.fill(levels.step[g]);
      }
    }
    const Codes z = load_codes(codes + i * kLanes);
    if (Samples == 1) {
      levels_of(z, top, lo, hi, step, value);
    } else {
      // The mean of two samples that share a base. Exact where they are one level. A code beyond
      // the last one (a corrupted chunk) has both halves at or beyond `top`: it reads as the last.
      const Codes low = z >> 1;
      levels_of(low, top, lo, hi, step, value);
      levels_of(z - low, top, lo, hi, step, other);
      for (size_t k = 0; k < Line<T>::kParts; ++k) {
        value.part[k] = (value.part[k] + other.part[k]) * T(0.5);
      }
    }
    value.store(out + static_cast<ptrdiff_t>(i) * stride);
  }
}

template <class T, class Round>
ZIPML_INLINE T scaled_level(T code, T top, T lo, T hi, T step, T factor, T unscale) {
  T level = lo + code * step;
  level = (level * unscale) * factor;  // a denormal has fewer digits
  level = Round::level(level);
  level = level < hi ? level : hi;
  level = code >= top ? hi : level;
  return code <= T(0) ? lo : level;
}

// The same for any grids and codes: all that Grid does.
template <class T, class Round, int Samples, size_t LineStep, size_t LaneStep>
ZIPML_INLINE void any_lines(const uint8_t* __restrict low, const uint8_t* __restrict ninth,
                            size_t lines, const Levels<T>& levels, size_t first, int32_t intervals,
                            T* __restrict out, ptrdiff_t stride) {
  const T* __restrict lo = levels.lo + first;
  const T* __restrict hi = levels.hi + first;
  const T* __restrict step = levels.step + first;
  const T* __restrict factor = levels.factor + first;
  const T* __restrict unscale = levels.unscale + first;
  const T* __restrict lower = levels.lower + first;
  const T* __restrict upper = levels.upper + first;
  const T top = T(intervals);
  for (size_t i = 0; i < lines; ++i) {
    T* __restrict to = out + static_cast<ptrdiff_t>(i) * stride;
#pragma GCC unroll 1
    for (size_t l = 0; l < kLanes; ++l) {
      const size_t g = i * LineStep + l * LaneStep;
      const int32_t code = low[i * kLanes + l] | ninth[i * kLanes + l] << 8;
      const int32_t below = Samples == 1 ? code : code >> 1;
      const T a = T(below), b = T(code - below);
      const T one = scaled_level<T, Round>(a, top, lo[g], hi[g], step[g], factor[g], unscale[g]);
      T value = one * unscale[g];
      value = a >= top ? upper[g] : value;
      value = a <= T(0) ? lower[g] : value;
      if (Samples == 2) {
        const T two = scaled_level<T, Round>(b, top, lo[g], hi[g], step[g], factor[g], unscale[g]);
        const T mean = Round::level((one + two) * T(0.5) * unscale[g]);
        value = (a == b) | (a >= top) ? value : mean;
      }
      to[l] = value;
    }
  }
}

// Lines whose codes lie 16 after 16. `plain` says that all grids in question are.
template <class T, class Round, size_t LineStep, size_t LaneStep>
static __attribute__((noinline)) void values_of(
    const uint8_t* low, const uint8_t* ninth, size_t lines, const Levels<T>& levels, size_t first,
    bool plain, CodeSpec spec, T* out, ptrdiff_t stride) {
  const int32_t n = spec.intervals();
  if (std::is_same<Round, Keep>::value && plain && spec.stored_bits() <= 8) {
    if (spec.samples == 1) {
      plain_lines<T, 1, LineStep, LaneStep>(low, lines, levels, first, n, out, stride);
    } else {
      plain_lines<T, 2, LineStep, LaneStep>(low, lines, levels, first, n, out, stride);
    }
  } else if (spec.samples == 1) {
    any_lines<T, Round, 1, LineStep, LaneStep>(low, ninth, lines, levels, first, n, out, stride);
  } else {
    any_lines<T, Round, 2, LineStep, LaneStep>(low, ninth, lines, levels, first, n, out, stride);
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
