// The accelerator's arithmetic (docs/accelerator.md): what its registers and tables hold, and what a
// run changes. Everything is an integer, and no sum can overflow; fixed_point.cpp says why.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zipml {

// By how many bits the intercept's code is above 1, and a unit of residuals and targets above one of
// the model.
constexpr int fixed_own_shift(int bits) { return bits > 4 ? bits - 4 : 0; }
constexpr int fixed_margin_shift(int bits) { return bits > 4 ? bits : 4; }

// Bytes of a beat, and of the targets ahead of the codes. Values in float32 become codes of 16 bits;
// their targets take the lower half of a beat.
constexpr size_t fixed_beat_bytes(int bits, size_t lanes) {
  return bits == 16 ? lanes * sizeof(float) : lanes * static_cast<size_t>(bits) / 8;
}
constexpr size_t fixed_head_bytes(int bits, size_t lanes) {
  return bits == 16 ? fixed_beat_bytes(bits, lanes) : lanes * sizeof(int16_t);
}

constexpr int kFixedLogisticBits = 14;  // of a residual of the logistic loss behind the point
constexpr int kFixedSigmoidPlaces = 10;  // of an argument within an interval
constexpr size_t kFixedIntervals = 512;  // of the table of the sigmoid
constexpr int16_t kFixedNoRow = -32768;
constexpr size_t kFixedBatchTiles = 64;   // the most of a mini-batch
constexpr size_t kFixedColumns = 16384;   // more than any accelerator has

enum class FixedLoss : int { kSquared, kLogistic, kSquaredHinge };

// Stored bits are 1, 2, 4 or 8, or 16 for values in float32; lanes are 8, 16, 32 or 64; tables have
// columns + 1 entries, the intercept's first.
struct FixedProgram {
  int bits;
  size_t lanes, columns, batch_tiles;
  uint16_t step;
  int shift;  // 0 to 31
  bool delayed;
  const uint16_t *centre, *pace, *variance;
  FixedLoss loss;
  int refinement;  // of the logistic loss, 0 to 3
  const int16_t *sigmoid, *rise;  // at the left ends of its intervals, and within each: 0 to 2^14

  size_t packet_bytes() const { return fixed_head_bytes(bits, lanes) + columns * fixed_beat_bytes(bits, lanes); }
};

// `before` is the model ahead of the last tile's update, which a delayed run meets.
struct FixedState {
  int16_t *model, *before;  // columns + 1
  int64_t* gradient;        // of the mini-batch so far
  int64_t curvature;        // of the mini-batch so far
  size_t tiles;             // of the mini-batch so far
  uint64_t seed;
  bool model_saturated, residual_saturated;
};

}  // namespace zipml
