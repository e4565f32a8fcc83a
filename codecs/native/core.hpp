// What the functions of the native core take and give (kernels.hpp lists them), free of Python:
// buffers belong to the caller, sizes have been checked by module.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zipml {

// Per-column bounds (lower[c], upper[c]) or, with `by_row`, per-row bounds -scale[r], +scale[r].
// Where levels are not equally spaced, readers get the values themselves: of each stored code of
// each column, `codes` of them a column.
template <class T>
struct Scales {
  const T* lower;
  const T* upper;
  bool by_row;
  const T* values = nullptr;
  size_t codes = 0;
};

// Levels of any distances, as places on a grid of `top` steps between a column's bounds: for each
// column as many as there are codes, ascending from 0 to top, which may be repeated at the end.
struct LevelTable {
  const uint16_t* places;
  int32_t top;
};

// A sum of 128 bits.
struct WideSum {
  uint64_t low, high;

  inline __attribute__((always_inline)) WideSum& operator+=(const WideSum& other) {
    low += other.low;
    high += other.high + (low < other.low ? 1 : 0);
    return *this;
  }
};

// A matrix of values that may be strided (strides in elements).
template <class T>
struct Matrix {
  T* data;
  size_t rows, columns;
  ptrdiff_t row_stride, column_stride;
};

// The bits of a binary16 number.
struct RawHalf {
  uint16_t bits;
};

// With `woven`, codes of the weaved layout: 2^bits intervals, and a plane for each bit and each sample.
struct CodeSpec {
  int bits, samples;  // 1, 2, 4 or 8 samples; woven 1 or 2
  bool woven = false;
  int stored_bits() const {
    if (woven) return bits + samples;
    return bits + (samples == 8 ? 3 : samples == 4 ? 2 : samples - 1);
  }
  int32_t intervals() const { return (1 << bits) - (woven ? 0 : 1); }
};

// A precision that the encoder of the weaved layout makes sample planes for.
struct WeaveSpec {
  int bits, samples;
  uint32_t precisions;  // bit k - 1 stands for precision k
};

// One encoded chunk as the training kernels see it: tile t of the chunk is the dataset's tile
// first_tile + t. `row_scale` is null for column scales.
struct ChunkView {
  const uint8_t* codes;
  size_t rows;
  const float* target;  // rows x outputs, or the class code of each row
  const float* row_scale;
  uint64_t first_tile;
  const float* weight = nullptr;  // how often each row counts; null for once
};

struct TileRef {
  uint32_t chunk, tile;
};

// Value of stored code z in column j of row i: row_scale[i] * (offset[j] + slope[j] z) - centre[j].
// With level tables, an entry of column j's table stands in the place of z: table_stride entries a
// column, each the sum of tables[b][..] 256^b over its table_bytes bytes.
struct Affine {
  const float* offset;
  const float* slope;
  const float* centre;
  size_t columns;
  int stored_bits;
  const uint8_t* tables[2];
  size_t table_bytes, table_stride;
  int woven = 0;  // sample planes of the weaved layout, which are among the stored bits; 0: packed
};

// Numbers that meet the codes: model and residuals in single precision, or rounded stochastically
// to one or two signed digits of eight bits (the end-to-end scheme of ZipML, section 2.4) and
// multiplied exactly.
enum class Arithmetic : int { kFloat = 0, kInt16 = 1, kInt8 = 2 };

// Columns whose products with integers a sum of 32 bits holds (dots.hpp).
constexpr size_t kMaxDotColumns = 1 << 17;

// Losses of a margin and a target: a number, or 1 or 0 for a row that is of the output's class or not.
// Softmax takes the margins of a row together.
enum class Loss : int { kSquared, kHuber, kLogistic, kHinge, kSquaredHinge, kLsSvm, kSoftmax };

// The same chunks of the weaved layout with all their planes, of which only some tiles need be there: `fetch`
// is called with those that are missing and are looked at next. It may throw.
struct Finer {
  const ChunkView* chunks;
  const uint8_t* const* present;  // of each chunk, a byte a tile: not zero where the planes are there
  Affine affine;                  // as that of fewer bits, slopes divided by 2^more
  int more;                       // bits
  void (*fetch)(void* context, const TileRef* tiles, size_t count);
  void* context;
  uint64_t *rows, *slots;  // are counted up: rows that were read again, row slots of the tiles that took
};

// A polynomial in the place of a loss's derivative by the signed margin u: the sum over j of weights[j]
// times the elementary symmetric polynomial of degree j of all samples' (u - centre) inverse_range but one.
// Where their mean margin lies beyond the range, or a value beyond the bound, the derivative itself is taken.
struct MarginPolynomial {
  int samples = 0;  // that a stored code is the sum of, 4 or 8; 0: no polynomial
  float centre = 0, inverse_range = 0, bound = 0;
  float weights[8] = {};
};

struct SgdOptions {
  Loss loss;
  float huber_delta;  // distance from the target at which Huber's loss becomes linear
  bool class_codes;   // a row's target is one class code: output k tells class k from the others
  Arithmetic arithmetic;
  bool split;         // the paper's form: the two samples of a code sum drawn apart again
  double correction;  // part of the rounding bias that is taken out of the gradient, 0 to 1
  const float* variance;  // rounding variance of each column, of the value as read; 0 without a slope
  const float* l2;        // strength of the L2 penalty of each column
  const float* l1;        // and of the L1 penalty, or null
  double momentum;        // weight of the steps before in a step, 0 to 1
  bool fit_intercept;
  size_t batch_tiles;
  double batch_rows;  // rows that a step counts for: what sums over a mini-batch are divided by
  double step_first, step_last;  // step sizes of the first and of the last mini-batch
  size_t average_from;           // mini-batches before this one do not enter the average
  uint64_t seed;
  uint32_t draw;  // which draw of splits and roundings this is (the epoch)
  const Finer* finer = nullptr;  // where rows of the hinge loss are read that fewer bits leave open
  MarginPolynomial polynomial{};
};

// The model at which the gradient over all rows is known (SVRG): a step then takes the difference
// of its mini-batch's gradient to that of the anchor, plus the mean over all rows.
struct SgdAnchor {
  const float* model;      // outputs x columns, or null
  const float* intercept;  // outputs
  const float* gradient;   // outputs x columns
  const float* intercept_gradient;
};

struct SgdState {
  float* model;      // outputs x columns
  float* intercept;  // outputs
  double* model_sum;      // sums of the averaged iterates
  double* intercept_sum;
  size_t outputs;
  float* velocity = nullptr;  // outputs x columns, with momentum
  float* intercept_velocity = nullptr;
  SgdAnchor anchor{};
  double* gradient = nullptr;  // outputs x columns: where given, nothing moves but these sums
  double* intercept_gradient = nullptr;
};

struct SgdResult {
  double loss_sum;  // over rows, each with the model before its mini-batch; rounding bias removed
  size_t rows, averaged;
};

}  // namespace zipml
