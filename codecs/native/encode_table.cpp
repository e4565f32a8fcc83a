// Stochastic quantisation and packing of one chunk with level tables: levels of any distances, which
// lie on a grid between the bounds (docs/format.md).

#include "encoder.hpp"
#include "native.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

// The levels of some columns: those of kLanes columns lie side by side, level by level.
template <class T>
struct TableLanes {
  Buffer<T> lower, upper, factor;  // of each column
  Buffer<T> level;                 // times `factor`; levels that are not there are infinite
  Buffer<T> gap;                   // to the next level; infinite for the last one
  Buffer<uint32_t> gap_square;     // the same in units of the grid, squared; 0 for the last one
  size_t levels = 0;

  ZIPML_INLINE size_t at(size_t column, size_t j) const {
    return (column / kLanes * levels + j) * kLanes + column % kLanes;
  }

  template <class Round>
  ZIPML_INLINE void fill(Scales<T> scales, LevelTable table, size_t count, size_t level_count, Round) {
    // Lanes without a column are as harmless as one that is constant; the last block is for repeat_last.
    const size_t room = (count + kLanes - 1) / kLanes * kLanes + kLanes;
    levels = level_count;
    for (Buffer<T>* b : {&lower, &upper, &factor}) b->reset(room);
    for (Buffer<T>* b : {&level, &gap}) b->reset(room * levels);
    gap_square.reset(room * levels);
    const T infinite = static_cast<T>(HUGE_VAL);
    for (size_t c = 0; c < room; ++c) {
      factor[c] = T(1);
      for (size_t j = 0; j < levels; ++j) {
        level[at(c, j)] = j == 0 ? T(0) : infinite;
        gap[at(c, j)] = infinite;
      }
      if (c >= count) continue;
      const Grid<T, Round> grid(scales.lower[c], scales.upper[c], table.top);
      lower[c] = scales.lower[c];
      upper[c] = scales.upper[c];
      factor[c] = grid.factor;
      const uint16_t* places = table.places + c * levels;
      for (size_t j = 0; j < levels; ++j) {
        level[at(c, j)] = grid.scaled_level(static_cast<int32_t>(places[j]));
        if (j > 0) {
          const uint32_t wide = static_cast<uint32_t>(places[j]) - places[j - 1];
          gap[at(c, j - 1)] = level[at(c, j)] - level[at(c, j - 1)];
          gap_square[at(c, j - 1)] = wide * wide;
        }
        if (places[j] >= table.top) break;  // the others repeat it
      }
    }
  }

  // As GridTable::repeat_last.
  ZIPML_INLINE size_t repeat_last(size_t count, size_t width) {
    const size_t first = (count + kLanes - 1) / kLanes * kLanes;
    for (size_t lane = 0; lane < kLanes / width * width; ++lane) {
      const size_t from = count - width + lane % width, to = first + lane;
      for (Buffer<T>* b : {&lower, &upper, &factor}) (*b)[to] = (*b)[from];
      for (size_t j = 0; j < levels; ++j) {
        level[at(to, j)] = level[at(from, j)];
        gap[at(to, j)] = gap[at(from, j)];
        gap_square[at(to, j)] = gap_square[at(from, j)];
      }
    }
    return first;
  }
};

// What a row of a block finds: code and squared gap of each lane, and where the value lies in the
// gap. `units`, of which the lower half is the probability of rounding up, carries into the code.
struct Found {
  Words code, gap_square, units;
};

// Adding it leaves a multiple of 2^-16 in the low bits, ties to even, as rint does. What it puts
// above them is above any code.
template <class T>
struct Units;
template <>
struct Units<float> {
  static constexpr float magic = 128.0f;
};
template <>
struct Units<double> {
  static constexpr double magic = 68719476736.0;
};

template <class T>
ZIPML_INLINE Words units_of(typename LanesOf<T>::type share) {
  return low_words(share + spread(Units<T>::magic));
}

// Up to 16 levels: all of them are compared, for 16 values at a time that is less than a search.
struct CompareAll {
  template <class T>
  ZIPML_INLINE static Found find(Floats x, const TableLanes<T>& t, size_t first) {
    const T *level = t.level.data() + t.at(first, 0), *gap = t.gap.data() + t.at(first, 0);
    const uint32_t* square = t.gap_square.data() + t.at(first, 0);
    Floats low = load(level), wide = load(gap);
    Found found{Words{}, load_as<Words>(square), Words{}};
    for (size_t j = 1; j < t.levels; ++j) {
      const Floats here = load(level + j * kLanes);
      const auto reached = x >= here;
      low = reached ? here : low;
      wide = reached ? load(gap + j * kLanes) : wide;
      found.gap_square = reached ? load_as<Words>(square + j * kLanes) : found.gap_square;
      found.code -= (Words)reached;
    }
    found.units = units_of<float>((x - low) / wide);
    return found;
  }
};

// Any number: each lane halves its levels.
struct Halving {
  template <class T>
  ZIPML_INLINE static Found find(typename LanesOf<T>::type x, const TableLanes<T>& t, size_t first) {
    const T *level = t.level.data() + t.at(first, 0), *gap = t.gap.data() + t.at(first, 0);
    const uint32_t* square = t.gap_square.data() + t.at(first, 0);
    alignas(64) T value[kLanes], low[kLanes], wide[kLanes];
    alignas(64) uint32_t code[kLanes], squares[kLanes];
    store(value, x);
    for (size_t lane = 0; lane < kLanes; ++lane) code[lane] = 0;
    for (uint32_t half = static_cast<uint32_t>(t.levels / 2); half > 0; half /= 2) {
      // Lanes do not wait for each other, and nothing branches on what is a matter of chance.
#pragma GCC unroll 16
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const bool reached = value[lane] >= level[(code[lane] + half) * kLanes + lane];
        code[lane] += half & (0u - static_cast<uint32_t>(reached));
      }
    }
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const size_t i = code[lane];
      low[lane] = level[i * kLanes + lane];
      wide[lane] = gap[i * kLanes + lane];
      squares[lane] = square[i * kLanes + lane];
    }
    return {load_as<Words>(code), load_as<Words>(squares), units_of<T>((x - load(low)) / load(wide))};
  }
};

// Sums of p (65536 - p) times the squared gap: the lower 16 bits of the first factor and the others
// apart, so that the products of 64 rows fit.
struct TableVarianceLanes {
  Quads low[2]{}, high[2]{};  // even lanes, odd lanes

  ZIPML_INLINE void add(Words p, Words gap_square) {
    const Words variance = p * (65536u - p);
    const Quads low_part = (Quads)(variance & 0xFFFFu), high_part = (Quads)(variance >> 16);
    const Quads square = (Quads)gap_square;
    low[0] += wide_product(low_part, square);
    high[0] += wide_product(high_part, square);
    low[1] += wide_product(low_part >> 32, square >> 32);
    high[1] += wide_product(high_part >> 32, square >> 32);
  }
  ZIPML_INLINE void add_to(WideSum* sums, size_t columns) const {
    for (size_t c = 0; c < columns; ++c) {
      WideSum more{high[c % 2][c / 2] << 16, high[c % 2][c / 2] >> 48};
      more += WideSum{low[c % 2][c / 2], 0};
      sums[c] += more;
    }
  }
};

// A division may give 0 / 0 where levels coincide and infinity where a value is out of bounds: the
// first is no more than a gap of no width, in which there is nothing but its upper end (`level`
// finds the last of equal levels), and the second is refused.
template <class T, class Search>
ZIPML_INLINE bool round_table_block(const T* values, ptrdiff_t stride, const char* ahead,
                                    ptrdiff_t ahead_stride, const TableLanes<T>& table, size_t first,
                                    int samples, Words words[32], size_t columns, WideSum* variance) {
  using V = typename LanesOf<T>::type;
  Beyond beyond;
  TableVarianceLanes sums;
  const V lower = load(table.lower.data() + first), upper = load(table.upper.data() + first);
  const V factor = load(table.factor.data() + first);
  const auto find = [&](const T* row) -> Found {
    const V value = load(row);
    look(beyond, value, lower, upper);
    return Search::template find<T>(value * factor, table, first);
  };
  for (size_t w = 0; w < 4; ++w) {
    for (size_t m = 0; m < 8; ++m) {
      const size_t r = 16 * w + 2 * m;
      const T* row = values + static_cast<ptrdiff_t>(r) * stride;
      const char* next = ahead + static_cast<ptrdiff_t>(r) * ahead_stride;
      for (size_t byte = 0; byte < sizeof(T) * kLanes; byte += 64) {
        prefetch(next + byte);
        prefetch(next + ahead_stride + byte);
      }
      const Found even = find(row), odd = find(row + stride);
      const Words units = low_halves(even.units, odd.units);
      const Halves base = (Halves)low_halves(even.code, odd.code) + (Halves)high_halves(even.units, odd.units);
      const Halves p = (Halves)units, both = product_high(p, p);
      sums.add(units & 0xFFFFu, even.gap_square);
      sums.add(units >> 16, odd.gap_square);
      const Halves draw = (Halves)words[8 * w + m];
      words[8 * w + m] = (Words)(samples == 1 ? plus_less(base, draw, p) : two_rounded(base, p, both, draw));
    }
  }
  if (variance) sums.add_to(variance, columns);
  return !beyond.any();
}

template <class T, class Round>
struct TableRounding {
  using Sum = WideSum;

  const Scales<T> scales;
  const LevelTable table;
  const CodeSpec spec;
  TableLanes<T> lanes;

  ZIPML_INLINE void fill(size_t count) {
    lanes.fill(scales, table, count, static_cast<size_t>(spec.intervals()) + 1, Round());
  }
  ZIPML_INLINE size_t repeat_last(size_t count, size_t width) { return lanes.repeat_last(count, width); }
  ZIPML_INLINE T filler(size_t column) const { return lanes.lower[column]; }

  ZIPML_INLINE bool round(const T* from, ptrdiff_t stride, const char* ahead, ptrdiff_t ahead_stride,
                          size_t first, Words* words, size_t count, WideSum* sums, double*) {
    if constexpr (std::is_same_v<T, float>) {
      if (spec.bits <= 4) {
        return round_table_block<T, CompareAll>(from, stride, ahead, ahead_stride, lanes, first,
                                                spec.samples, words, count, sums);
      }
    }
    return round_table_block<T, Halving>(from, stride, ahead, ahead_stride, lanes, first, spec.samples,
                                         words, count, sums);
  }
};

template <class In, class T, class Round>
ZIPML_INLINE bool encode_any(Matrix<const In> values, Scales<T> scales, LevelTable table, CodeSpec spec,
                             uint64_t seed, uint64_t first_tile, uint8_t* codes, WideSum* variance) {
  using Rounding = TableRounding<T, Round>;
  Rounding rounding{scales, table, at_once(spec), {}};
  Encoder<In, T, Rounding> encoder{values, spec, false, RoundKeys(seed), first_tile, codes,
                                   variance, nullptr, rounding, true, {}, {}};
  return encoder.run();
}

}  // namespace

bool encode_table_float(Matrix<const float> v, Scales<float> s, LevelTable t, CodeSpec c, uint64_t seed,
                        uint64_t tile, uint8_t* out, WideSum* var) {
  return encode_any<float, float, Keep>(v, s, t, c, seed, tile, out, var);
}
bool encode_table_float_to_half(Matrix<const float> v, Scales<float> s, LevelTable t, CodeSpec c,
                                uint64_t seed, uint64_t tile, uint8_t* out, WideSum* var) {
  return encode_any<float, float, ToHalf>(v, s, t, c, seed, tile, out, var);
}
bool encode_table_half(Matrix<const RawHalf> v, Scales<float> s, LevelTable t, CodeSpec c, uint64_t seed,
                       uint64_t tile, uint8_t* out, WideSum* var) {
  return encode_any<RawHalf, float, ToHalf>(v, s, t, c, seed, tile, out, var);
}
bool encode_table_byte(Matrix<const uint8_t> v, Scales<float> s, LevelTable t, CodeSpec c, uint64_t seed,
                       uint64_t tile, uint8_t* out, WideSum* var) {
  return encode_any<uint8_t, float, Keep>(v, s, t, c, seed, tile, out, var);
}
bool encode_table_double(Matrix<const double> v, Scales<double> s, LevelTable t, CodeSpec c, uint64_t seed,
                         uint64_t tile, uint8_t* out, WideSum* var) {
  return encode_any<double, double, Keep>(v, s, t, c, seed, tile, out, var);
}

}  // namespace ZIPML_ISA
}  // namespace zipml
