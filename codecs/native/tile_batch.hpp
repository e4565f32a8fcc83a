// What training sees of the native core: chunks, the tiles to visit, and what can be done with them.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "kernels.hpp"
#include "layout.hpp"

namespace zipml {

// The chunks of a training call and the tiles to visit, checked against each other. The arrays are
// held so that no buffer goes away while Python holds this object.
class TileBatch {
 public:
  using Codes = std::vector<Vec<uint8_t>>;
  using Targets = std::vector<DenseMat<float>>;
  using RowScales = std::vector<std::optional<Vec<float>>>;
  using Weights = std::vector<Vec<float>>;
  // All planes of the chunks of the weaved layout, whether those of a tile are there, a byte a tile, and the
  // stored bits that they have.
  using Whole = std::tuple<Codes, Codes, int>;
  using Tables = nb::ndarray<nb::ndim<2>, nb::c_contig, nb::ro, nb::device::cpu>;

  TileBatch(Codes codes, Targets targets, RowScales row_scales, Vec<uint64_t> first_tiles,
            DenseMat<uint32_t> refs, Vec<float> offset, Vec<float> slope, Vec<float> centre,
            int stored_bits, size_t outputs, std::optional<Tables> tables, Weights weights,
            int woven, std::optional<Whole> whole)
      : outputs_(outputs), codes_(std::move(codes)), targets_(std::move(targets)),
        row_scales_(std::move(row_scales)), weights_(std::move(weights)), offset_(offset), slope_(slope),
        centre_(centre) {
    const size_t columns = offset.shape(0);
    require(slope.shape(0) == columns && centre.shape(0) == columns,
            "offset, slope and centre need one entry a column");
    require(woven >= 0 && woven <= 2, "the weaved layout has one or two sample planes, the packed one none");
    if (woven) {
      require(stored_bits > woven && stored_bits <= 8 + woven, "the weaved layout has 1 to 8 base planes");
      require(!tables, "level tables go with the packed layout");
    } else {
      require(stored_bits >= 1 && stored_bits <= 9, "stored bits must lie in 1..9");
    }
    require(outputs >= 1, "there must be at least one output");
    require(targets_.size() == codes_.size() && row_scales_.size() == codes_.size() &&
                first_tiles.shape(0) == codes_.size(),
            "every chunk needs its codes, targets, row scales and first tile");
    require(weights_.empty() || weights_.size() == codes_.size(), "every chunk has weights, or none");
    affine_ = {offset_.data(), slope_.data(), centre_.data(), columns, stored_bits, {}, 0, 0, woven};
    if (tables) set_tables(*tables);
    chunks_.reserve(codes_.size());
    for (size_t c = 0; c < codes_.size(); ++c) {
      const size_t n = targets_[c].shape(0);
      const auto& scales = row_scales_[c];
      require(scales.has_value() == row_scales_[0].has_value(), "all chunks have row scales, or none");
      class_codes_ = outputs > 1 && targets_[0].shape(1) == 1;
      require(targets_[c].shape(1) == (class_codes_ ? 1 : outputs),
              "the targets need one column an output, or one of class codes");
      require(codes_[c].shape(0) == checked_codes_size(n, columns, stored_bits),
              "a code buffer has the wrong size");
      require(!scales || scales->shape(0) == n, "one row scale for each row is needed");
      require(weights_.empty() || weights_[c].shape(0) == n, "one weight for each row is needed");
      chunks_.push_back({codes_[c].data(), n, targets_[c].data(), scales ? scales->data() : nullptr,
                         first_tiles.data()[c], weights_.empty() ? nullptr : weights_[c].data()});
    }
    require(refs.shape(1) == 2, "a tile is named by its chunk and its number there");
    tiles_.reserve(refs.shape(0));
    for (size_t t = 0; t < refs.shape(0); ++t) {
      const TileRef ref{refs.data()[2 * t], refs.data()[2 * t + 1]};
      require(ref.chunk < chunks_.size() && ref.tile < tile_count(chunks_[ref.chunk].rows),
              "a tile lies outside of its chunk");
      rows_ += rows_in_tile(chunks_[ref.chunk].rows, ref.tile);
      tiles_.push_back(ref);
    }
    if (whole) set_whole(std::move(*whole));
  }

  // What it points to lies partly in itself.
  TileBatch(const TileBatch&) = delete;
  TileBatch& operator=(const TileBatch&) = delete;

  size_t rows() const { return rows_; }

  void margins(DenseMat<float> model, Vec<float> intercept, MutDenseMat<float> out) const {
    require_model(model.shape(0), model.shape(1), intercept.shape(0));
    require(out.shape(0) == rows_ && out.shape(1) == outputs_, "margins are rows x outputs");
    nb::gil_scoped_release release;
    kernels().margins(chunks_.data(), tiles_.data(), tiles_.size(), affine_, model.data(),
                   intercept.data(), outputs_, out.data());
  }

  void gradient(DenseMat<float> residuals, MutDenseMat<double> out) const {
    require(residuals.shape(0) == rows_ && residuals.shape(1) == outputs_,
            "residuals are rows x outputs");
    require(out.shape(0) == outputs_ && out.shape(1) == affine_.columns,
            "the gradient is outputs x columns");
    nb::gil_scoped_release release;
    kernels().gradient(chunks_.data(), tiles_.data(), tiles_.size(), affine_, residuals.data(),
                    outputs_, out.data());
  }

  void gram(MutDenseMat<double> moments, MutVec<double> sums) const {
    const size_t d = affine_.columns;
    require(moments.shape(0) == d && moments.shape(1) == d && sums.shape(0) == d,
            "moments are columns x columns, sums have one entry a column");
    nb::gil_scoped_release release;
    kernels().gram(chunks_.data(), tiles_.data(), tiles_.size(), affine_, moments.data(), sums.data());
  }

  void square_norms(MutVec<float> out) const {
    require(out.shape(0) == rows_, "there is one norm a row");
    nb::gil_scoped_release release;
    kernels().square_norms(chunks_.data(), tiles_.data(), tiles_.size(), affine_, out.data());
  }

  // Takes a list of tiles, each a chunk and its number there, whose planes are to be put into their buffers.
  using Fetch = nb::callable;

  // Weights, range and bound of a polynomial in the place of the loss's derivative.
  using Polynomial = std::tuple<Vec<float>, float, float>;
  using Anchor = std::tuple<DenseMat<float>, Vec<float>, DenseMat<float>, Vec<float>>;

  nb::tuple sgd(MutDenseMat<float> model, MutVec<float> intercept, MutDenseMat<double> model_sum,
                MutVec<double> intercept_sum, const std::string& loss,
                const std::string& arithmetic, bool split, double correction, Vec<float> variance,
                Vec<float> l2, bool fit_intercept, size_t batch_tiles,
                double batch_rows, double step_first, double step_last, size_t average_from, uint64_t seed,
                uint32_t draw, std::optional<Vec<float>> l1, double momentum,
                std::optional<MutDenseMat<float>> velocity, std::optional<MutVec<float>> intercept_velocity,
                std::optional<Anchor> anchor, float huber_delta, std::optional<Fetch> fetch,
                std::optional<MutVec<uint64_t>> refetched, const std::optional<Polynomial>& polynomial) const {
    require_model(model.shape(0), model.shape(1), intercept.shape(0));
    require_model(model_sum.shape(0), model_sum.shape(1), intercept_sum.shape(0));
    require(l2.shape(0) == affine_.columns && (!l1 || l1->shape(0) == affine_.columns),
            "l1 and l2 need one entry a column");
    require(batch_rows > 0, "a mini-batch counts for some rows");
    require(momentum >= 0 && momentum < 1, "momentum must be 0 up to, not with, 1");
    require(!anchor || arithmetic == "float", "an anchor goes with float arithmetic");
    require(momentum == 0 || (velocity && intercept_velocity), "momentum needs velocities");
    SgdOptions options =
        sgd_options(loss, huber_delta, arithmetic, split, correction, variance, batch_tiles, seed, draw);
    if (polynomial) set_polynomial(*polynomial, options);
    require(!anchor || !polynomial, "an anchor does not go with a polynomial");
    options.l2 = l2.data();
    options.l1 = l1 ? l1->data() : nullptr;
    options.momentum = momentum;
    options.fit_intercept = fit_intercept;
    options.batch_rows = batch_rows;
    options.step_first = step_first;
    options.step_last = step_last;
    options.average_from = average_from;
    SgdState state{model.data(), intercept.data(), model_sum.data(), intercept_sum.data(), outputs_};
    if (momentum != 0) {
      require_model(velocity->shape(0), velocity->shape(1), intercept_velocity->shape(0));
      state.velocity = velocity->data();
      state.intercept_velocity = intercept_velocity->data();
    }
    if (anchor) {
      const auto& [at, at_intercept, mean, mean_intercept] = *anchor;
      require_model(at.shape(0), at.shape(1), at_intercept.shape(0));
      require_model(mean.shape(0), mean.shape(1), mean_intercept.shape(0));
      state.anchor = {at.data(), at_intercept.data(), mean.data(), mean_intercept.data()};
    }
    Finer finer{};
    require(!fetch || !anchor, "rows are not read again with an anchor");
    if (fetch) options.finer = set_finer(finer, options, *fetch, refetched);
    const SgdResult result = run(options, state);
    return nb::make_tuple(result.loss_sum, result.rows, result.averaged);
  }

  // The gradient over all rows, as sgd would see it in one mini-batch, in sums of doubles.
  nb::tuple full_gradient(DenseMat<float> model, Vec<float> intercept, const std::string& loss,
                          const std::string& arithmetic, bool split, double correction, Vec<float> variance,
                          size_t batch_tiles, uint64_t seed, uint32_t draw, MutDenseMat<double> out,
                          MutVec<double> intercept_out, float huber_delta, std::optional<Fetch> fetch,
                          std::optional<MutVec<uint64_t>> refetched,
                          const std::optional<Polynomial>& polynomial) const {
    require_model(model.shape(0), model.shape(1), intercept.shape(0));
    require_model(out.shape(0), out.shape(1), intercept_out.shape(0));
    SgdOptions options =
        sgd_options(loss, huber_delta, arithmetic, split, correction, variance, batch_tiles, seed, draw);
    const std::vector<float> none(affine_.columns, 0.0f);
    if (polynomial) set_polynomial(*polynomial, options);
    options.l2 = none.data();
    options.batch_rows = 1;
    options.average_from = std::numeric_limits<size_t>::max();
    SgdState state{};  // a model that is only read
    state.model = const_cast<float*>(model.data());
    state.intercept = const_cast<float*>(intercept.data());
    state.outputs = outputs_;
    state.gradient = out.data();
    state.intercept_gradient = intercept_out.data();
    std::fill_n(state.gradient, outputs_ * affine_.columns, 0.0);
    std::fill_n(state.intercept_gradient, outputs_, 0.0);
    Finer finer{};
    if (fetch) options.finer = set_finer(finer, options, *fetch, refetched);
    const SgdResult result = run(options, state);
    return nb::make_tuple(result.loss_sum, result.rows);
  }

 private:
  SgdOptions sgd_options(const std::string& loss, float huber_delta, const std::string& arithmetic, bool split,
                         double correction, const Vec<float>& variance, size_t batch_tiles, uint64_t seed,
                         uint32_t draw) const {
    const Loss which = loss_of(loss);
    require(class_codes_ ? which != Loss::kSquared && which != Loss::kHuber : which != Loss::kSoftmax,
            "squared and Huber take numbers, softmax takes one column of class codes");
    require(huber_delta > 0, "Huber's loss needs a distance above 0");
    require(arithmetic == "float" || arithmetic == "int16" || arithmetic == "int8",
            "the arithmetic must be float, int16 or int8");
    SgdOptions options{};
    options.loss = which;
    options.huber_delta = huber_delta;
    options.class_codes = class_codes_;
    options.arithmetic = arithmetic == "float"   ? Arithmetic::kFloat
                         : arithmetic == "int16" ? Arithmetic::kInt16
                                                 : Arithmetic::kInt8;
    require(options.arithmetic == Arithmetic::kFloat || affine_.columns <= kMaxDotColumns,
            "integer arithmetic takes up to 131072 columns: use float");
    require(!split || (affine_.woven ? affine_.woven == 2 : affine_.stored_bits >= 2),
            "there are no two samples to split");
    require(variance.shape(0) == affine_.columns, "variance needs one entry a column");
    require(batch_tiles >= 1, "a mini-batch is at least one tile");
    options.split = split;
    options.correction = correction;
    options.variance = variance.data();
    options.batch_tiles = batch_tiles;
    options.seed = seed;
    options.draw = draw;
    return options;
  }

  const Finer* set_finer(Finer& finer, const SgdOptions& options, Fetch& fetch,
                         std::optional<MutVec<uint64_t>>& refetched) const {
    require(options.loss == Loss::kHinge && !options.split, "rows are read again for the hinge loss alone, not split");
    require(!whole_.empty(), "rows are read again in planes that the batch does not have");
    require(refetched && refetched->shape(0) == 2, "rows and slots that were read again are counted in two numbers");
    finer = {whole_.data(), present_.data(), whole_affine_, whole_affine_.stored_bits - affine_.stored_bits,
             &call, &fetch, refetched->data(), refetched->data() + 1};
    return &finer;
  }

  static void call(void* context, const TileRef* tiles, size_t count) {
    nb::gil_scoped_acquire acquire;
    nb::list missing;
    for (size_t i = 0; i < count; ++i) missing.append(nb::make_tuple(tiles[i].chunk, tiles[i].tile));
    (*static_cast<Fetch*>(context))(missing);
  }

  void set_polynomial(const Polynomial& given, SgdOptions& options) const {
    const auto& [weights, range, bound] = given;
    const size_t samples = weights.shape(0);
    require(samples == 4 || samples == 8, "a polynomial has a weight for each of four or eight samples");
    require(affine_.stored_bits <= 8 && (samples == 8 ? 8 : 4) <= (1 << (affine_.stored_bits - 1)) && !affine_.woven,
            "the stored codes are no sums of so many samples");
    require(range > 0 && bound > 0, "range and bound of a polynomial must be above 0");
    require(options.loss == Loss::kLogistic || options.loss == Loss::kHinge,
            "a polynomial goes with the logistic loss or the hinge");
    require(options.arithmetic == Arithmetic::kFloat && !options.split && options.correction == 0,
            "a polynomial goes with float arithmetic, without split and correction");
    options.polynomial.samples = static_cast<int>(samples);
    options.polynomial.centre = options.loss == Loss::kHinge ? 1.0f : 0.0f;  // where the derivative jumps
    options.polynomial.inverse_range = 1.0f / range;
    options.polynomial.bound = bound;
    for (size_t j = 0; j < samples; ++j) options.polynomial.weights[j] = weights.data()[j];
  }

  SgdResult run(const SgdOptions& options, const SgdState& state) const {
    nb::gil_scoped_release release;
    return kernels().sgd(chunks_.data(), tiles_.data(), tiles_.size(), affine_, options, state);
  }

  void require_model(size_t outputs, size_t columns, size_t intercepts) const {
    require(outputs == outputs_ && columns == affine_.columns && intercepts == outputs_,
            "the model is outputs x columns with one intercept an output");
  }

  static Loss loss_of(const std::string& name) {
    const char* const names[] = {"squared", "huber", "logistic", "hinge", "squared-hinge", "ls-svm", "softmax"};
    for (int i = 0; i < 7; ++i) {
      if (name == names[i]) return static_cast<Loss>(i);
    }
    throw std::invalid_argument("unknown loss " + name);
  }

  void set_whole(Whole whole) {
    const auto& [codes, present, stored_bits] = whole;
    require(affine_.woven && !affine_.tables[0], "rows are read again in the weaved layout");
    require(stored_bits > affine_.stored_bits && stored_bits <= 8 + affine_.woven, "all planes are more, and at most 8");
    require(codes.size() == chunks_.size() && present.size() == chunks_.size(), "every chunk needs all its planes");
    for (size_t c = 0; c < chunks_.size(); ++c) {
      const size_t rows = chunks_[c].rows;
      require(!chunks_[c].row_scale, "rows are read again with column scales alone");
      require(codes[c].shape(0) == checked_codes_size(rows, affine_.columns, stored_bits),
              "a buffer of all planes has the wrong size");
      require(present[c].shape(0) == tile_count(rows), "whether planes are there is one byte a tile");
      whole_.push_back(chunks_[c]);
      whole_[c].codes = codes[c].data();
      present_.push_back(present[c].data());
    }
    // The same values for codes of more bits.
    for (size_t j = 0; j < affine_.columns; ++j) {
      whole_slope_.push_back(std::ldexp(slope_.data()[j], affine_.stored_bits - stored_bits));
    }
    whole_affine_ = affine_;
    whole_affine_.slope = whole_slope_.data();
    whole_affine_.stored_bits = stored_bits;
    whole_arrays_ = std::move(whole);
  }

  // Entries of a column are padded to a power of two, so that no code reaches beyond its table.
  void set_tables(const Tables& tables) {
    const int bits = affine_.stored_bits;
    require(bits <= 8, "level tables go with up to eight stored bits");
    const size_t entries = size_t{1} << bits, stride = entries < 16 ? 16 : entries;
    require(tables.shape(0) == affine_.columns && tables.shape(1) == entries,
            "a level table has one entry for each code of each column");
    const bool wide = tables.dtype() == nb::dtype<uint16_t>();
    require(wide || tables.dtype() == nb::dtype<uint8_t>(), "level tables are uint8 or uint16");
    affine_.table_bytes = wide ? 2 : 1;
    affine_.table_stride = stride;
    for (size_t b = 0; b < affine_.table_bytes; ++b) {
      tables_[b].assign(stride * affine_.columns + 64, 0);
      for (size_t j = 0; j < affine_.columns; ++j) {
        for (size_t z = 0; z < entries; ++z) {
          const size_t at = j * entries + z;
          const unsigned entry = wide ? static_cast<const uint16_t*>(tables.data())[at]
                                      : static_cast<const uint8_t*>(tables.data())[at];
          tables_[b][j * stride + z] = static_cast<uint8_t>(entry >> (8 * b));
        }
      }
      affine_.tables[b] = tables_[b].data();
    }
  }

  size_t outputs_, rows_ = 0;
  Codes codes_;
  Targets targets_;
  RowScales row_scales_;
  Weights weights_;
  bool class_codes_ = false;
  Vec<float> offset_, slope_, centre_;
  std::vector<ChunkView> chunks_;
  std::vector<TileRef> tiles_;
  std::vector<uint8_t> tables_[2];
  Affine affine_{};
  std::optional<Whole> whole_arrays_;  // holds the buffers
  std::vector<ChunkView> whole_;
  std::vector<const uint8_t*> present_;
  std::vector<float> whole_slope_;
  Affine whole_affine_{};
};

}  // namespace zipml
