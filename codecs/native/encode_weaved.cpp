// Stochastic quantisation of one chunk to bit planes: the base on the finest grid, and for every
// precision samples of what the base leaves there (docs/format.md).

#include "encoder.hpp"
#include "native.hpp"
#include "weave.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

// Positions of a block: the base, and the probability of rounding up in units of 2^-16.
struct Positions {
  alignas(64) Halves base[32];
  alignas(64) Halves up[32];
};

template <class T, class Round, bool Careful>
__attribute__((noinline)) bool place_block(const Block<T>& block, const GridTable<T>& grids, size_t first,
                                           Positions& out) {
  const LaneGrid<T, Round, Careful> grid = column_grid<T, Round, Careful>(grids, first);
  const LaneGrid<T, Round, Careful> side[4] = {grid, grid, grid, grid};
  // What the first level has in the place of a base of zero: see Magic.
  const Words code = low_words(spread(Magic<T>::whole)), units = low_words(spread(Magic<T>::units));
  const Halves zero = (Halves)low_halves(code, code) + (Halves)high_halves(units, units);
  Beyond beyond;
  for (size_t r = 0; r < kTileRows; r += 4) {
    Intervals<T> rows[4];
    find_intervals<4>(side, block[r], kLanes, beyond, rows);
#pragma GCC unroll 2
    for (size_t i = 0; i < 4; i += 2) {
      const Words even = grid.units(rows[i].away, rows[i].gap), odd = grid.units(rows[i + 1].away, rows[i + 1].gap);
      const size_t pair = (r + i) / 2;
      out.up[pair] = (Halves)low_halves(even, odd);
      out.base[pair] = (Halves)low_halves(rows[i].code, rows[i + 1].code) + (Halves)high_halves(even, odd) - zero;
    }
  }
  return !beyond.any();
}

template <class In, class T, class Round>
struct Weaver {
  const Matrix<const In> values;
  const WeaveSpec spec;
  const RoundKeys keys;
  const uint64_t first_tile;
  uint8_t* const planes;
  uint64_t* const variance;
  GridTable<T> grids;
  Block<T> block = {};
  Positions at;
  alignas(64) Halves shares[32];
  alignas(64) Words words[32];

  // One bit of every code, in the low bit of `words`, to the next plane.
  ZIPML_INLINE void write(size_t plane, size_t t, size_t c0, size_t width) {
    const size_t columns = values.columns, rows = rows_in_tile(values.rows, t);
    uint8_t* tile = planes + plane * codes_size(values.rows, columns, 1) + tile_offset(t, columns, 1);
    if (rows == kTileRows) {
      pack_block(words, 1, columns, c0, width, tile);
    } else {
      pack_ragged_block(words, rows, 1, columns, c0, width, tile);
    }
  }

  // The last level has a base of all ones and rounds up for certain.
  ZIPML_INLINE Halves last_level(size_t pair) const { return at.base[pair] >> spec.bits; }

  // The probabilities of rounding up at a precision, rounded to 16 bits.
  ZIPML_INLINE void set_shares(int precision) {
    const int rest = spec.bits - precision;
    const Halves mask = spread_half(static_cast<uint16_t>((1u << rest) - 1)), most = spread_half(0xFFFF);
    for (size_t pair = 0; pair < 32; ++pair) {
      const Halves p = at.up[pair];
      if (rest == 0) {
        shares[pair] = p;
        continue;
      }
      const Halves down = ((at.base[pair] & mask) << (16 - rest)) | (p >> rest);
      const Halves half = (p >> (rest - 1)) & spread_half(1);
      shares[pair] = down + (half & (Halves)(down != most));
    }
  }

  ZIPML_INLINE void weave_samples(int precision, size_t plane, size_t row, size_t t, size_t c0, size_t width) {
    set_shares(precision);
    VarianceLanes sums;
    for (size_t pair = 0; pair < 32; ++pair) {
      sums.add(shares[pair], shares[pair] - product_high(shares[pair], shares[pair]));
    }
    sums.add_to(variance + row * values.columns + c0, width);
    for (int s = 0; s < spec.samples; ++s) {
      const uint64_t purpose = static_cast<uint64_t>(Purpose::kWeave) << 24;
      draw_tile(keys, first_tile + t, static_cast<uint32_t>(c0), words,
                purpose | static_cast<uint64_t>(2 * precision + s) << 8);
      for (size_t pair = 0; pair < 32; ++pair) {
        words[pair] = (Words)plus_less(last_level(pair), (Halves)words[pair], shares[pair]);
      }
      write(plane + static_cast<size_t>(s), t, c0, width);
    }
  }

  ZIPML_INLINE bool weave_block(size_t t, size_t c0) {
    const size_t rows = rows_in_tile(values.rows, t), width = least(kLanes, values.columns - c0);
    for (size_t r = width < kLanes ? 0 : rows; r < kTileRows; ++r) {
      for (size_t c = 0; c < kLanes; ++c) block[r][c] = grids.lower[c0 + c];
    }
    gather(values, t * kTileRows, rows, c0, width, block, 0);
    const bool within = grids.any_careful(c0, width) ? place_block<T, Round, true>(block, grids, c0, at)
                                                     : place_block<T, Round, false>(block, grids, c0, at);
    size_t plane = 0;
    for (int bit = spec.bits - 1; bit >= 0; --bit) {
      for (size_t pair = 0; pair < 32; ++pair) words[pair] = (Words)((at.base[pair] - last_level(pair)) >> bit);
      write(plane++, t, c0, width);
    }
    size_t row = static_cast<size_t>(__builtin_popcount(spec.precisions));
    for (int precision = 8; precision > 0; --precision) {
      if (!(spec.precisions >> (precision - 1) & 1)) continue;
      weave_samples(precision, plane, --row, t, c0, width);
      plane += static_cast<size_t>(spec.samples);
    }
    return within;
  }

  ZIPML_INLINE bool run(Scales<T> scales) {
    bool within = true;
    grids.fill(scales, values.columns, 1 << spec.bits, Round());
    const size_t rows = static_cast<size_t>(__builtin_popcount(spec.precisions));
    std::memset(variance, 0, rows * values.columns * sizeof(uint64_t));
    for (size_t t = 0; t < tile_count(values.rows); ++t) {
      for (size_t c0 = 0; c0 < values.columns; c0 += kLanes) within &= weave_block(t, c0);
    }
    return within;
  }
};

template <class In, class T, class Round>
ZIPML_INLINE bool weave_any(Matrix<const In> values, Scales<T> scales, WeaveSpec spec, uint64_t seed,
                            uint64_t first_tile, uint8_t* planes, uint64_t* variance) {
  Weaver<In, T, Round> weaver{values, spec, RoundKeys(seed), first_tile, planes, variance, {}, {}, {}, {}, {}};
  return weaver.run(scales);
}

}  // namespace

bool weave_float(Matrix<const float> v, Scales<float> s, WeaveSpec w, uint64_t seed, uint64_t tile, uint8_t* out,
                 uint64_t* var) {
  return weave_any<float, float, Keep>(v, s, w, seed, tile, out, var);
}
bool weave_float_to_half(Matrix<const float> v, Scales<float> s, WeaveSpec w, uint64_t seed, uint64_t tile,
                         uint8_t* out, uint64_t* var) {
  return weave_any<float, float, ToHalf>(v, s, w, seed, tile, out, var);
}
bool weave_half(Matrix<const RawHalf> v, Scales<float> s, WeaveSpec w, uint64_t seed, uint64_t tile, uint8_t* out,
                uint64_t* var) {
  return weave_any<RawHalf, float, ToHalf>(v, s, w, seed, tile, out, var);
}
bool weave_byte(Matrix<const uint8_t> v, Scales<float> s, WeaveSpec w, uint64_t seed, uint64_t tile, uint8_t* out,
                uint64_t* var) {
  return weave_any<uint8_t, float, Keep>(v, s, w, seed, tile, out, var);
}
bool weave_double(Matrix<const double> v, Scales<double> s, WeaveSpec w, uint64_t seed, uint64_t tile, uint8_t* out,
                  uint64_t* var) {
  return weave_any<double, double, Keep>(v, s, w, seed, tile, out, var);
}

}  // namespace ZIPML_ISA
}  // namespace zipml
