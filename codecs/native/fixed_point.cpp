// The accelerator's arithmetic on the packets of its stream, bit for bit: zipml_ooc/gateware/reference.py
// is its twin. All of it is integers, so that no instruction set can differ.
//
// How large numbers become, with at most 2^14 columns and 2^12 rows in a mini-batch: a product of a
// model's entry and a code lies within 2^23, 256 of them within 31 bits and a sign; a margin within
// 2^38, the argument of a sigmoid within 2^41; a tile's part of the gradient within 2^29, the gradient
// within 2^35; a sum of curvatures within 2^26; products with centres and variances within 2^54; a
// change within 2^37, times a pace within 2^54.
#include "fixed_point.hpp"

#include "isa.hpp"
#include "layout.hpp"
#include "native.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

constexpr size_t kBlockColumns = 256;  // whose products with codes a sum of 32 bits holds

template <class T>
ZIPML_INLINE T clipped(T value, T low, T high, bool& outside) {
  const T inside = least(greatest(value, low), high);
  outside |= inside != value;
  return inside;
}

// The codes of a column, row after row, from a beat of the packed layout.
template <int Bits, size_t Lanes>
ZIPML_INLINE void codes_of_beat(const uint8_t* beat, int16_t* codes) {
  constexpr size_t bytes = Lanes * Bits / 8;
  constexpr unsigned mask = (1u << Bits) - 1;
  for (size_t i = 0; i < 8 / Bits; ++i) {
    for (size_t k = 0; k < bytes; ++k) {
      codes[i * bytes + k] = static_cast<int16_t>((beat[k] >> (i * Bits)) & mask);
    }
  }
}

// A_r of every row of a tile, targets not taken off.
template <int Bits, size_t Lanes>
ZIPML_INLINE void margins_of_tile(const FixedProgram& p, const int16_t* model, const uint8_t* beats,
                                  int64_t* margins) {
  constexpr size_t beat = Lanes * Bits / 8;
  int64_t centre = 0;
  for (size_t j = 0; j <= p.columns; ++j) centre += int64_t{model[j]} * p.centre[j];
  const int64_t start = model[0] * (int64_t{1} << fixed_own_shift(Bits)) - (centre >> (16 - Bits));
  for (size_t r = 0; r < Lanes; ++r) margins[r] = start;
  for (size_t first = 0; first < p.columns; first += kBlockColumns) {
    const size_t end = least(first + kBlockColumns, p.columns);
    alignas(64) int32_t sums[Lanes] = {};
    for (size_t j = first; j < end; ++j) {
      alignas(64) int16_t codes[Lanes];
      codes_of_beat<Bits, Lanes>(beats + j * beat, codes);
      const int32_t u = model[j + 1];
      for (size_t r = 0; r < Lanes; ++r) sums[r] += u * codes[r];
    }
    for (size_t r = 0; r < Lanes; ++r) margins[r] += sums[r];
  }
}

// Of the logistic loss by a margin, less the target: the first derivative, and a number that the
// second is a multiple of.
template <int Bits>
ZIPML_INLINE int64_t sigmoid_residual(const FixedProgram& p, int64_t margin, bool negative, int64_t& curvature) {
  constexpr int64_t half = kFixedIntervals / 2;
  constexpr int64_t unit = int64_t{1} << kFixedSigmoidPlaces;
  const int64_t fine = (margin * (int64_t{8} >> p.refinement)) >> fixed_own_shift(Bits);
  const int64_t held = least(greatest(fine, -half * unit), half * unit - 1);
  const int64_t place = (held >> kFixedSigmoidPlaces) + half;
  curvature = p.rise[place];
  const int64_t more = (curvature * (held & (unit - 1)) + unit / 2) >> kFixedSigmoidPlaces;
  return p.sigmoid[place] + more - (negative ? 0 : int64_t{1} << kFixedLogisticBits);
}

// The first derivatives of the loss by the margins, 0 where there is no row; returns the sum of the
// second ones.
template <int Bits, size_t Lanes>
ZIPML_INLINE int64_t residuals_of_tile(const FixedProgram& p, const int64_t* margins, const int16_t* targets,
                                       int16_t* residuals, bool& saturated) {
  constexpr int64_t unit = int64_t{1} << fixed_margin_shift(Bits);
  int64_t sum = 0;
  for (size_t r = 0; r < Lanes; ++r) {
    residuals[r] = 0;
    if (targets[r] == kFixedNoRow) continue;
    const bool negative = targets[r] < 0;
    const int64_t margin = margins[r] - targets[r] * unit;
    int64_t curvature = 1, residual;
    if (p.loss == FixedLoss::kLogistic) {
      residual = sigmoid_residual<Bits>(p, negative ? margin - unit : margin, negative, curvature);
    } else {
      residual = (margin + unit / 2) >> fixed_margin_shift(Bits);
      if (p.loss == FixedLoss::kSquaredHinge && (residual < 0) == negative) continue;
    }
    sum += curvature;
    residuals[r] = static_cast<int16_t>(clipped<int64_t>(residual, -32768, 32767, saturated));
  }
  return sum;
}

template <int Bits, size_t Lanes>
ZIPML_INLINE void add_gradient(const FixedProgram& p, const int16_t* residuals, const uint8_t* beats,
                               int64_t* gradient) {
  constexpr size_t beat = Lanes * Bits / 8;
  int32_t all = 0;
  for (size_t r = 0; r < Lanes; ++r) all += residuals[r];
  gradient[0] += int64_t{all} * (1 << fixed_own_shift(Bits));
  for (size_t j = 0; j < p.columns; ++j) {
    alignas(64) int16_t codes[Lanes];
    codes_of_beat<Bits, Lanes>(beats + j * beat, codes);
    int32_t sum = 0;
    for (size_t r = 0; r < Lanes; ++r) sum += int32_t{residuals[r]} * codes[r];
    gradient[j + 1] += sum;
  }
}

// The end of a mini-batch: each entry takes its step and a draw.
ZIPML_INLINE void update(const FixedProgram& p, FixedState& s) {
  const int64_t all = s.gradient[0] >> fixed_own_shift(p.bits);
  const int64_t curvature = p.loss == FixedLoss::kLogistic ? s.curvature >> (3 + p.refinement) : s.curvature;
  constexpr int64_t most = int64_t{1} << 32;
  uint64_t x = s.seed;
  for (size_t j = 0; j <= p.columns; ++j) {
    const int64_t u = s.model[j];
    const int64_t at_centre = (int64_t{p.centre[j]} * all) >> (16 - p.bits);
    const int64_t correction = (curvature * p.variance[j] * u) >> (16 + fixed_margin_shift(p.bits));
    const int64_t change = s.gradient[j] - at_centre - correction;
    const int64_t pace = (int64_t{p.pace[j]} * p.step + 32768) >> 16;
    bool far = false;
    const int64_t moved = clipped<int64_t>((change * pace) >> p.shift, -most, most - 1, far);
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    const int64_t draw = static_cast<int64_t>(x >> 48);
    s.model[j] = static_cast<int16_t>(
        clipped<int64_t>((u * 65536 - moved + draw) >> 16, -32768, 32767, s.model_saturated));
    s.gradient[j] = 0;
  }
  s.seed = x;
  s.curvature = 0;
  s.tiles = 0;
}

template <int Bits, size_t Lanes>
void run_tiles(const FixedProgram& p, FixedState& s, const uint8_t* packets, size_t count) {
  for (size_t t = 0; t < count; ++t) {
    const uint8_t* packet = packets + t * p.packet_bytes();
    const uint8_t* beats = packet + Lanes * sizeof(int16_t);
    alignas(64) int16_t targets[Lanes], residuals[Lanes];
    alignas(64) int64_t margins[Lanes];
    std::memcpy(targets, packet, sizeof(targets));
    margins_of_tile<Bits, Lanes>(p, p.delayed ? s.before : s.model, beats, margins);
    if (p.delayed) std::memcpy(s.before, s.model, (p.columns + 1) * sizeof(int16_t));
    s.curvature += residuals_of_tile<Bits, Lanes>(p, margins, targets, residuals, s.residual_saturated);
    add_gradient<Bits, Lanes>(p, residuals, beats, s.gradient);
    if (++s.tiles == p.batch_tiles) update(p, s);
  }
}

template <int Bits>
void run_lanes(const FixedProgram& p, FixedState& s, const uint8_t* packets, size_t count) {
  switch (p.lanes) {
    case 8: return run_tiles<Bits, 8>(p, s, packets, count);
    case 16: return run_tiles<Bits, 16>(p, s, packets, count);
    case 32: return run_tiles<Bits, 32>(p, s, packets, count);
    default: return run_tiles<Bits, 64>(p, s, packets, count);
  }
}

}  // namespace

void fixed_tiles(const FixedProgram& p, FixedState& s, const uint8_t* packets, size_t count) {
  switch (p.bits) {
    case 1: return run_lanes<1>(p, s, packets, count);
    case 2: return run_lanes<2>(p, s, packets, count);
    case 4: return run_lanes<4>(p, s, packets, count);
    default: return run_lanes<8>(p, s, packets, count);
  }
}

void fixed_update(const FixedProgram& p, FixedState& s) { update(p, s); }

}  // namespace ZIPML_ISA
}  // namespace zipml
