// The bounds of columns and the magnitudes of rows, each in one pass that also finds values that are
// not finite.

#include <cmath>
#include <type_traits>

#include "native.hpp"
#include "working.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

// The bits of a number without its sign grow with its magnitude, and NaN comes last: their largest
// shows whether all are finite.
template <class T>
struct Bits {
  using type = uint32_t;
  static constexpr type sign = 0x80000000u, infinite = 0x7F800000u;
};
template <>
struct Bits<double> {
  using type = uint64_t;
  static constexpr type sign = uint64_t{1} << 63, infinite = uint64_t{0x7FF} << 52;
};

template <class T>
ZIPML_INLINE typename Bits<T>::type magnitude_bits(T x) {
  typename Bits<T>::type bits;
  std::memcpy(&bits, &x, sizeof x);
  return bits & ~Bits<T>::sign;
}

// Numbers that are looked at side by side where a single one would wait for the last.
constexpr size_t kSide = 32;

// Widens [*low, *high] to hold `count` values of which `distance` is the distance.
template <class In, class T>
ZIPML_INLINE void widen(const In* values, size_t count, ptrdiff_t distance, T* low, T* high,
                        typename Bits<T>::type* worst) {
  T lows[kSide], highs[kSide];
  typename Bits<T>::type bits[kSide];
  for (size_t i = 0; i < kSide; ++i) {
    lows[i] = *low;
    highs[i] = *high;
    bits[i] = *worst;
  }
  const auto take = [&](T x, size_t i) {
    lows[i] = least(lows[i], x);
    highs[i] = greatest(highs[i], x);
    bits[i] = greatest(bits[i], magnitude_bits(x));
  };
  size_t done = 0;
  if (distance == 1) {
    for (; done + kSide <= count; done += kSide) {
      for (size_t i = 0; i < kSide; ++i) take(as_working(values[done + i]), i);
    }
  }
  for (; done < count; ++done) take(as_working(values[static_cast<ptrdiff_t>(done) * distance]), 0);
  for (size_t i = 0; i < kSide; ++i) {
    *low = least(*low, lows[i]);
    *high = greatest(*high, highs[i]);
    *worst = greatest(*worst, bits[i]);
  }
}

template <class In, class T>
ZIPML_INLINE bool column_bounds_any(Matrix<const In> m, T* low, T* high) {
  typename Bits<T>::type worst = 0;
  for (size_t c = 0; c < m.columns; ++c) {
    low[c] = HUGE_VAL;
    high[c] = -HUGE_VAL;
  }
  if (m.column_stride != 1) {
    for (size_t c = 0; c < m.columns; ++c) {
      widen(m.data + static_cast<ptrdiff_t>(c) * m.column_stride, m.rows, m.row_stride, &low[c],
            &high[c], &worst);
    }
  } else {
    for (size_t r = 0; r < m.rows;) {
      // Four rows at a time, so that the bounds are not loaded and stored for each.
      const size_t count = m.rows - r >= 4 ? 4 : 1;
      const In* a = m.data + static_cast<ptrdiff_t>(r) * m.row_stride;
      const ptrdiff_t next = count == 4 ? m.row_stride : 0;
      const In *b = a + next, *d = b + next, *e = d + next;
      for (size_t c = 0; c < m.columns; ++c) {
        const T w = as_working(a[c]), x = as_working(b[c]), y = as_working(d[c]), z = as_working(e[c]);
        low[c] = least(low[c], least(least(w, x), least(y, z)));
        high[c] = greatest(high[c], greatest(greatest(w, x), greatest(y, z)));
        worst = greatest(worst, greatest(greatest(magnitude_bits(w), magnitude_bits(x)),
                                         greatest(magnitude_bits(y), magnitude_bits(z))));
      }
      r += count;
    }
  }
  return worst < Bits<T>::infinite;
}

template <class In, class T>
ZIPML_INLINE bool row_magnitudes_any(Matrix<const In> m, T* largest) {
  using U = typename Bits<T>::type;
  U worst = 0;
  const auto keep = [&](size_t r, U bits) {
    std::memcpy(&largest[r], &bits, sizeof bits);
    worst = greatest(worst, bits);
  };
  if (m.row_stride == 1) {  // column by column, as they lie
    for (size_t r = 0; r < m.rows; ++r) largest[r] = 0;
    for (size_t c = 0; c < m.columns; ++c) {
      const In* column = m.data + static_cast<ptrdiff_t>(c) * m.column_stride;
      for (size_t r = 0; r < m.rows; ++r) keep(r, greatest(magnitude_bits(largest[r]), magnitude_bits(as_working(column[r]))));
    }
  } else {
    for (size_t r = 0; r < m.rows; ++r) {
      const In* row = m.data + static_cast<ptrdiff_t>(r) * m.row_stride;
      U bits = 0;
      if (m.column_stride == 1) {
        for (size_t c = 0; c < m.columns; ++c) bits = greatest(bits, magnitude_bits(as_working(row[c])));
      } else {
        for (size_t c = 0; c < m.columns; ++c) {
          bits = greatest(bits, magnitude_bits(as_working(row[static_cast<ptrdiff_t>(c) * m.column_stride])));
        }
      }
      keep(r, bits);
    }
  }
  return worst < Bits<T>::infinite;
}

}  // namespace

bool column_bounds_float(Matrix<const float> m, float* low, float* high) { return column_bounds_any(m, low, high); }
bool column_bounds_half(Matrix<const RawHalf> m, float* low, float* high) { return column_bounds_any(m, low, high); }
bool column_bounds_byte(Matrix<const uint8_t> m, float* low, float* high) { return column_bounds_any(m, low, high); }
bool column_bounds_double(Matrix<const double> m, double* low, double* high) { return column_bounds_any(m, low, high); }
bool row_magnitudes_float(Matrix<const float> m, float* largest) { return row_magnitudes_any(m, largest); }
bool row_magnitudes_half(Matrix<const RawHalf> m, float* largest) { return row_magnitudes_any(m, largest); }
bool row_magnitudes_byte(Matrix<const uint8_t> m, float* largest) { return row_magnitudes_any(m, largest); }
bool row_magnitudes_double(Matrix<const double> m, double* largest) { return row_magnitudes_any(m, largest); }

}  // namespace ZIPML_ISA
}  // namespace zipml
