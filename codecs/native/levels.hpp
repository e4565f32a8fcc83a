// Values of stored codes, 16 at a time: the arithmetic of Grid (grid.hpp), laid out for vectors.
//
// A line is 16 codes that become 16 values next to each other. Its lanes are the columns of a row
// or the rows of a column, so the grid changes from lane to lane, from line to line, or both.
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
  T *lo, *hi, *step;    // of the values times `factor`
  T *factor, *unscale;  // and its inverse: a power of two, so that both are exact
  T *lower, *upper;

  const size_t columns;

  explicit Levels(size_t count) : columns(count) {
    const size_t padded = (count + kLanes - 1) / kLanes * kLanes;
    numbers_.reset(7 * padded);
    plain_.reset(padded);
    T* next = numbers_.data();
    for (T** part : {&lo, &hi, &step, &factor, &unscale, &lower, &upper}) {
      *part = next;
      next += padded;
    }
    std::memset(plain_.data(), 1, padded);
  }

  ZIPML_INLINE ~Levels() {}  // inlined for sure, see isa.hpp

  // Of columns with a level table: the values of their stored codes.
  const T* values = nullptr;
  size_t codes = 0;

  // The grids of `count` columns.
  ZIPML_INLINE void set_columns(const Scales<T>& scales, size_t count, int32_t intervals) {
    values = scales.values;
    codes = scales.codes;
    for (size_t c = 0; c < count && !values; ++c) set(c, scales.lower[c], scales.upper[c], intervals);
  }

  ZIPML_INLINE void set(size_t i, T lower_bound, T upper_bound, int32_t intervals) {
    const Grid<T> grid(lower_bound, upper_bound, intervals);
    lo[i] = grid.lo;
    hi[i] = grid.hi;
    step[i] = grid.step;
    factor[i] = grid.factor;
    unscale[i] = T(1) / grid.factor;
    lower[i] = lower_bound;
    upper[i] = upper_bound;
    // Most grids need no care: there is nothing to scale; half a level is exact; no level but the
    // last can lie above the upper bound (levels do not fall: the last but one tells); and the
    // lowest is no negative zero, which the sum with 0 * step would make positive.
    const bool zero = lower_bound == T(0) && upper_bound == T(0);
    const bool halved = (lower_bound == T(0) || std::fabs(lower_bound) > T(1e-30)) &&
                        (upper_bound == T(0) || std::fabs(upper_bound) > T(1e-30));
    plain_[i] = (grid.factor == T(1) || zero) && halved &&
                grid.lo + T(intervals - 1) * grid.step <= grid.hi &&
                !(lower_bound == T(0) && std::signbit(lower_bound));
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

// The grids of a line, in vectors.
template <class T>
struct GridLine {
  Line<T> lo, hi, step, factor, unscale, lower, upper;

  template <bool Lanes>
  ZIPML_INLINE static void get(const T* from, Line<T>& line) {
    if (Lanes) {
      line.load(from);
    } else {
      line.fill(*from);
    }
  }

  // Of two samples, plain grids give half a level each, whose sum is the mean.
  template <bool Lanes, bool Plain, int Samples>
  ZIPML_INLINE void load(const Levels<T>& levels, size_t g) {
    get<Lanes>(levels.lo + g, lo);
    get<Lanes>(levels.hi + g, hi);
    get<Lanes>(levels.step + g, step);
    if (Plain) {
      for (size_t k = 0; k < Line<T>::kParts && Samples == 2; ++k) {
        lo.part[k] *= T(0.5);
        hi.part[k] *= T(0.5);
        step.part[k] *= T(0.5);
      }
      return;
    }
    get<Lanes>(levels.factor + g, factor);
    get<Lanes>(levels.unscale + g, unscale);
    get<Lanes>(levels.lower + g, lower);
    get<Lanes>(levels.upper + g, upper);
  }
};

// For up to seven bits: codes from `top` on, which read as `top`, become 255. The upper bound then
// lies below lo + 255 step and is the lesser of the two: that saves a comparison of floats.
ZIPML_INLINE Codes top_to_last(Codes z, uint8_t top) {
  typedef int8_t Signed __attribute__((vector_size(kLanes)));
  // Signed comparisons are what processors have. A code of 128 needs no change: top is 127.
  return z | (Codes)((Signed)z > static_cast<int8_t>(top - 1) - Signed{});
}

template <class T, class Round, bool Plain, bool Byte>
ZIPML_INLINE void levels_of(Codes z, uint8_t top, const GridLine<T>& grid, Line<T>& code,
                            Line<T>& out) {
  if (Plain && masked_levels(z, top, grid.lo, grid.hi, grid.step, out)) return;
  const bool least_of_both = Plain && !Byte;
  widen(least_of_both ? top_to_last(z, top) : z, code);
  for (size_t k = 0; k < Line<T>::kParts; ++k) {
    const auto c = code.part[k], hi = grid.hi.part[k];
    auto level = grid.lo.part[k] + c * grid.step.part[k];
    if (!Plain) {
      level = (level * grid.unscale.part[k]) * grid.factor.part[k];  // a denormal has fewer digits
      if (!std::is_same<Round, Keep>::value) round_to_halves(level);
    }
    level = level < hi ? level : hi;
    if (!least_of_both) level = c >= T(top) - decltype(c){} ? hi : level;
    if (!Plain) level = c <= decltype(c){} ? grid.lo.part[k] : level;
    out.part[k] = level;
  }
}

// The level itself, not times `factor`: the outer ones are the bounds, to the bit.
template <class T>
ZIPML_INLINE void unscaled(const Line<T>& code, uint8_t top, const GridLine<T>& grid,
                           Line<T>& level) {
  for (size_t k = 0; k < Line<T>::kParts; ++k) {
    const auto c = code.part[k];
    auto x = level.part[k] * grid.unscale.part[k];
    x = c >= T(top) - decltype(c){} ? grid.upper.part[k] : x;
    level.part[k] = c <= decltype(c){} ? grid.lower.part[k] : x;
  }
}

// `LineStep` and `LaneStep` say by how many grids each line and each lane moves on from grid
// `first`. Byte: there are eight bits.
template <class T, class Round, int Samples, bool Plain, bool Byte, size_t LineStep,
          size_t LaneStep>
ZIPML_INLINE void lines_of(const uint8_t* codes, const uint8_t* ninth, size_t lines,
                           const Levels<T>& levels, size_t first, uint8_t top, T* out,
                           ptrdiff_t stride) {
  GridLine<T> grid;
  Line<T> code, value, other_code, other;
  for (size_t i = 0; i < lines; ++i) {
    if (i == 0 || LineStep != 0) {
      grid.template load<LaneStep != 0, Plain, Samples>(levels, first + i * LineStep);
    }
    Codes z = load_codes(codes + i * kLanes);
    if (Samples == 1) {
      levels_of<T, Round, Plain, Byte>(z, top, grid, code, value);
      if (!Plain) unscaled(code, top, grid, value);
    } else {
      // The mean of two samples that share a base. A code beyond the last one (a corrupted chunk)
      // has both halves at or beyond `top`, and reads as the last.
      Codes low = z >> 1;
      if (Byte) low |= load_codes(ninth + i * kLanes) << 7;
      Codes high = low + (z & 1);
      if (Byte) high = high < low ? low : high;
      levels_of<T, Round, Plain, Byte>(low, top, grid, code, value);
      levels_of<T, Round, Plain, Byte>(high, top, grid, other_code, other);
      for (size_t k = 0; k < Line<T>::kParts; ++k) {
        other.part[k] += value.part[k];
        if (!Plain) other.part[k] *= T(0.5);
      }
      if (Plain) {
        value = other;
      } else {
        unscaled(code, top, grid, value);
        for (size_t k = 0; k < Line<T>::kParts; ++k) {
          const auto a = code.part[k], b = other_code.part[k];
          auto mean = other.part[k] * grid.unscale.part[k];
          if (!std::is_same<Round, Keep>::value) round_to_halves(mean);
          mean = a == b ? value.part[k] : mean;
          value.part[k] = a >= T(top) - decltype(a){} ? value.part[k] : mean;
        }
      }
    }
    value.store(out + static_cast<ptrdiff_t>(i) * stride);
  }
}

// The same where the values of a column's codes are given. Lanes beyond the last column have none.
template <class T, size_t LineStep, size_t LaneStep>
ZIPML_INLINE void looked_up(const uint8_t* low, const uint8_t* ninth, size_t lines, const Levels<T>& levels,
                            size_t first, bool wide, T* out, ptrdiff_t stride) {
  for (size_t i = 0; i < lines; ++i) {
    T* to = out + static_cast<ptrdiff_t>(i) * stride;
    const T* from = levels.values + (first + i * LineStep) * levels.codes;
    const size_t left = (levels.columns - first - i * LineStep);
    const size_t lanes = LaneStep == 0 ? kLanes : least(kLanes, left);
    for (size_t l = 0; l < lanes; ++l) {
      const size_t z = low[i * kLanes + l] | (wide ? static_cast<size_t>(ninth[i * kLanes + l]) << 8 : 0);
      // What a tile does not store may be any byte: a table has a power of two of entries.
      to[l] = from[l * LaneStep * levels.codes + (z & (levels.codes - 1))];
    }
  }
}

// Lines whose codes lie 16 after 16. `plain` says that all grids in question are.
template <class T, class Round, size_t LineStep, size_t LaneStep>
static __attribute__((noinline)) void values_of(const uint8_t* low, const uint8_t* ninth,
                                                size_t lines, const Levels<T>& levels, size_t first,
                                                bool plain, CodeSpec spec, T* out,
                                                ptrdiff_t stride) {
  constexpr bool kept = std::is_same<Round, Keep>::value;
  if (levels.values) {
    return looked_up<T, LineStep, LaneStep>(low, ninth, lines, levels, first, spec.stored_bits() > 8, out,
                                            stride);
  }
  const uint8_t top = static_cast<uint8_t>(spec.intervals());
#define ZIPML_LINES(samples, plain, byte)                                                        \
  lines_of<T, Round, samples, plain, byte, LineStep, LaneStep>(low, ninth, lines, levels, first, \
                                                               top, out, stride)
  if (kept && plain && spec.bits < 8) {
    spec.samples == 1 ? ZIPML_LINES(1, kept, false) : ZIPML_LINES(2, kept, false);
  } else if (kept && plain) {
    spec.samples == 1 ? ZIPML_LINES(1, kept, true) : ZIPML_LINES(2, kept, true);
  } else if (spec.bits < 8) {
    spec.samples == 1 ? ZIPML_LINES(1, false, false) : ZIPML_LINES(2, false, false);
  } else {
    spec.samples == 1 ? ZIPML_LINES(1, false, true) : ZIPML_LINES(2, false, true);
  }
#undef ZIPML_LINES
}

}  // namespace ZIPML_ISA
}  // namespace zipml
