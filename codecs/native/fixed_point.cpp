// The accelerator's arithmetic on the packets of its stream, bit for bit: zipml_ooc/gateware/reference.py
// is its twin. All of it is integers, so that no instruction set can differ; values in float32 become
// integers first, by operations that are exact or whose rounding cannot be seen.
//
// How large numbers become, with at most 2^14 columns and 2^12 rows in a mini-batch: a product of a
// model's entry and a code lies within 2^23, 256 of them within 31 bits and a sign; a margin within
// 2^38, the argument of a sigmoid within 2^41; a tile's part of the gradient within 2^29, the gradient
// within 2^35; a sum of curvatures within 2^26; products with centres and variances within 2^54; a
// change within 2^37, times a pace within 2^54. With codes of 16 bits: a product within 31 bits and a
// sign where 2^15 is taken off the code, a margin within 2^46, the argument of a sigmoid ahead of its
// shift within 2^49, the gradient within 2^43, a change within 2^45, times a pace within 2^61.
#include "fixed_point.hpp"

#include <type_traits>

#include "isa.hpp"
#include "layout.hpp"
#include "native.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

// Columns whose products with codes a sum of 32 bits holds.
template <int Bits>
constexpr size_t kBlockColumns = Bits == 16 ? 1 : 256;

// What the kernels take off codes, which they hold in 16 bits and a sign at most.
template <int Bits>
constexpr int kTakenOff = Bits == 16 ? 1 << 15 : 0;

template <class T>
ZIPML_INLINE T clipped(T value, T low, T high, bool& outside) {
  const T inside = least(greatest(value, low), high);
  outside |= inside != value;
  return inside;
}

// The codes of values in float32, 2^15 taken off: floor(2^12 x + 1/2), clipped. The sum below is taken
// in double precision, 2^15 above that, where cutting off rounds down. It is exact but for values below
// 2^-25 or so, which are far from the next code.
template <size_t Lanes>
ZIPML_INLINE void codes_of_values(const uint8_t* beat, int16_t* codes) {
  constexpr uint32_t sign = 1u << 31, eight = 0x41000000;  // also infinite values and NaN are held by 8
  alignas(64) uint32_t words[Lanes];
  alignas(64) float values[Lanes];
  std::memcpy(words, beat, sizeof(words));
  for (size_t r = 0; r < Lanes; ++r) words[r] = least(words[r] & ~sign, eight) | (words[r] & sign);
  std::memcpy(values, words, sizeof(values));
  for (size_t r = 0; r < Lanes; ++r) {
    const auto code = static_cast<int32_t>(static_cast<double>(values[r]) * 4096.0 + 32768.5);
    codes[r] = static_cast<int16_t>(least(code, 65535) - kTakenOff<16>);
  }
}

// The codes of a column, row after row, from a beat of the packed layout or of values.
template <int Bits, size_t Lanes>
ZIPML_INLINE void codes_of_beat(const uint8_t* beat, int16_t* codes) {
  if constexpr (Bits == 16) return codes_of_values<Lanes>(beat, codes);
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
  constexpr size_t beat = fixed_beat_bytes(Bits, Lanes);
  int64_t centre = 0, all = 0;
  for (size_t j = 0; j <= p.columns; ++j) centre += int64_t{model[j]} * p.centre[j];
  for (size_t j = 1; j <= p.columns; ++j) all += model[j];
  const int64_t start =
      model[0] * (int64_t{1} << fixed_own_shift(Bits)) - (centre >> (16 - Bits)) + all * kTakenOff<Bits>;
  for (size_t r = 0; r < Lanes; ++r) margins[r] = start;
  for (size_t first = 0; first < p.columns; first += kBlockColumns<Bits>) {
    const size_t end = least(first + kBlockColumns<Bits>, p.columns);
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
  constexpr size_t beat = fixed_beat_bytes(Bits, Lanes);
  using Sum = std::conditional_t<Bits == 16, int64_t, int32_t>;
  int32_t all = 0;
  for (size_t r = 0; r < Lanes; ++r) all += residuals[r];
  gradient[0] += int64_t{all} * (1 << fixed_own_shift(Bits));
  const int64_t taken_off = int64_t{all} * kTakenOff<Bits>;
  for (size_t j = 0; j < p.columns; ++j) {
    alignas(64) int16_t codes[Lanes];
    codes_of_beat<Bits, Lanes>(beats + j * beat, codes);
    Sum sum = 0;
    for (size_t r = 0; r < Lanes; ++r) sum += int32_t{residuals[r]} * codes[r];
    gradient[j + 1] += sum + taken_off;
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
    const uint8_t* beats = packet + fixed_head_bytes(Bits, Lanes);
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
    case 8: return run_lanes<8>(p, s, packets, count);
    default: return run_lanes<16>(p, s, packets, count);
  }
}

void fixed_update(const FixedProgram& p, FixedState& s) { update(p, s); }

}  // namespace ZIPML_ISA
}  // namespace zipml
