// The Python face of the accelerator's arithmetic: checks every size, then releases the GIL.
#include <vector>

#include "arrays.hpp"
#include "fixed_point.hpp"
#include "kernels.hpp"
#include "optimal_levels.hpp"

namespace zipml {
namespace {

// A run of the accelerator: registers and tables are fixed, model and generator change.
class FixedPointRun {
 public:
  FixedPointRun(int bits, size_t lanes, size_t batch_tiles, int64_t step, int shift, bool delayed,
                const Vec<uint16_t>& centre, const Vec<uint16_t>& pace, const Vec<uint16_t>& variance,
                const Vec<int16_t>& model, uint64_t seed, int loss, int refinement, const Vec<int16_t>& sigmoid,
                const Vec<int16_t>& rise) {
    const size_t entries = model.shape(0);
    require(bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16, "bits must be 1, 2, 4, 8 or 16");
    require(lanes == 8 || lanes == 16 || lanes == 32 || lanes == 64, "lanes must be 8, 16, 32 or 64");
    require(batch_tiles >= 1 && batch_tiles <= kFixedBatchTiles, "a mini-batch has 1 to 64 tiles");
    require(step >= 0 && step < 65536, "the step has 16 bits");
    require(shift >= 0 && shift < 32, "the shift must lie in 0..31");
    require(entries >= 1 && entries <= kFixedColumns + 1, "a model has 1 to 16385 entries");
    require(centre.shape(0) == entries && pace.shape(0) == entries && variance.shape(0) == entries,
            "the tables need one entry for each of the model");
    require(loss >= 0 && loss <= static_cast<int>(FixedLoss::kSquaredHinge), "the loss must lie in 0..2");
    require(refinement >= 0 && refinement <= 3, "the refinement must lie in 0..3");
    for (const auto& half : {sigmoid, rise}) {
      require(half.shape(0) == kFixedIntervals, "the sigmoid has 512 intervals");
      for (size_t i = 0; i < kFixedIntervals; ++i) {
        require(half.data()[i] >= 0 && half.data()[i] <= 1 << kFixedLogisticBits,
                "the sigmoid's values must lie in 0..16384");
      }
      sigmoid_.insert(sigmoid_.end(), half.data(), half.data() + kFixedIntervals);
    }
    tables_.assign(centre.data(), centre.data() + entries);
    tables_.insert(tables_.end(), pace.data(), pace.data() + entries);
    tables_.insert(tables_.end(), variance.data(), variance.data() + entries);
    models_.assign(model.data(), model.data() + entries);
    models_.insert(models_.end(), model.data(), model.data() + entries);
    gradient_.assign(entries, 0);
    const uint16_t* table = tables_.data();
    program_.bits = bits;
    program_.lanes = lanes;
    program_.columns = entries - 1;
    program_.batch_tiles = batch_tiles;
    program_.step = static_cast<uint16_t>(step);
    program_.shift = shift;
    program_.delayed = delayed;
    program_.centre = table;
    program_.pace = table + entries;
    program_.variance = table + 2 * entries;
    program_.loss = static_cast<FixedLoss>(loss);
    program_.refinement = refinement;
    program_.sigmoid = sigmoid_.data();
    program_.rise = sigmoid_.data() + kFixedIntervals;
    state_.model = models_.data();
    state_.before = models_.data() + entries;
    state_.gradient = gradient_.data();
    state_.seed = seed;
  }
  FixedPointRun(const FixedPointRun&) = delete;
  FixedPointRun& operator=(const FixedPointRun&) = delete;

  void tiles(const DenseMat<uint8_t>& packets) {
    require(packets.shape(1) == program_.packet_bytes(), "a row for each packet, of its bytes, is needed");
    const Kernels& k = kernels();
    nb::gil_scoped_release release;
    k.fixed_tiles(program_, state_, packets.data(), packets.shape(0));
  }

  // The end of the run: a mini-batch that has begun ends.
  void finish() {
    const Kernels& k = kernels();
    nb::gil_scoped_release release;
    if (state_.tiles) k.fixed_update(program_, state_);
  }

  void model(const MutVec<int16_t>& out) const {
    require(out.shape(0) == gradient_.size(), "the model has another number of entries");
    std::copy(models_.begin(), models_.begin() + static_cast<ptrdiff_t>(gradient_.size()), out.data());
  }

  const FixedState& state() const { return state_; }

 private:
  std::vector<uint16_t> tables_;
  std::vector<int16_t> models_, sigmoid_;
  std::vector<int64_t> gradient_;
  FixedProgram program_{};
  FixedState state_{};
};

}  // namespace

void bind_fixed_point(nb::module_& m) {
  nb::class_<FixedPointRun>(m, "FixedPointRun", "A run of the accelerator, in its own arithmetic.")
      .def(nb::init<int, size_t, size_t, int64_t, int, bool, const Vec<uint16_t>&, const Vec<uint16_t>&,
                    const Vec<uint16_t>&, const Vec<int16_t>&, uint64_t, int, int, const Vec<int16_t>&, const Vec<int16_t>&>(),
           nb::arg("bits"), nb::arg("lanes"), nb::arg("batch_tiles"), nb::arg("step"), nb::arg("shift"),
           nb::arg("delayed"), nb::arg("centre"), nb::arg("pace"), nb::arg("variance"), nb::arg("model"),
           nb::arg("seed"), nb::arg("loss"), nb::arg("refinement"), nb::arg("sigmoid"), nb::arg("rise"))
      .def("tiles", &FixedPointRun::tiles, nb::arg("packets"))
      .def("finish", &FixedPointRun::finish)
      .def("model", &FixedPointRun::model, nb::arg("out").noconvert())
      .def_prop_ro("seed", [](const FixedPointRun& r) { return r.state().seed; })
      .def_prop_ro("model_saturated", [](const FixedPointRun& r) { return r.state().model_saturated; })
      .def_prop_ro("residual_saturated", [](const FixedPointRun& r) { return r.state().residual_saturated; });
}

}  // namespace zipml
