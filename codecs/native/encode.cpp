// Stochastic quantisation and packing of one chunk with equally spaced levels.

#include "encoder.hpp"
#include "native.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

template <class T, class Round>
struct UniformRounding {
  using Sum = uint64_t;

  const Scales<T> scales;
  const CodeSpec spec;
  GridTable<T> grids;

  ZIPML_INLINE void fill(size_t count) { grids.fill(scales, count, spec.intervals(), Round()); }
  ZIPML_INLINE size_t repeat_last(size_t count, size_t width) { return grids.repeat_last(count, width); }
  // The lowest level, whose code is zero and does not vary.
  ZIPML_INLINE T filler(size_t column) const { return grids.lower[column]; }

  ZIPML_INLINE bool round(const T* from, ptrdiff_t stride, const char* ahead, ptrdiff_t ahead_stride,
                          size_t first, Words* words, size_t lanes, uint64_t* sums, double* row_sums) {
    const auto run = [&](auto careful, auto by_row) {
      return round_block<T, Round, decltype(careful)::value, decltype(by_row)::value>(
          from, stride, ahead, ahead_stride, grids, first, spec.samples, words, lanes, sums, row_sums);
    };
    if (scales.by_row) return grids.any_careful(first, kTileRows) ? run(Yes(), Yes()) : run(No(), Yes());
    return grids.any_careful(first, lanes) ? run(Yes(), No()) : run(No(), No());
  }
};

template <class In, class T, class Round>
ZIPML_INLINE bool encode_any(Matrix<const In> values, Scales<T> scales, CodeSpec spec, uint64_t seed,
                             uint64_t first_tile, uint8_t* codes, uint64_t* variance,
                             double* row_variance) {
  using Rounding = UniformRounding<T, Round>;
  Rounding rounding{scales, at_once(spec), {}};
  Encoder<In, T, Rounding> encoder{values, spec, scales.by_row, RoundKeys(seed), first_tile, codes,
                                   variance, row_variance, rounding, true, {}, {}};
  return encoder.run();
}

}  // namespace

bool encode_float(Matrix<const float> v, Scales<float> s, CodeSpec c, uint64_t seed, uint64_t tile,
                  uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<float, float, Keep>(v, s, c, seed, tile, out, var, row_var);
}
bool encode_float_to_half(Matrix<const float> v, Scales<float> s, CodeSpec c, uint64_t seed,
                          uint64_t tile, uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<float, float, ToHalf>(v, s, c, seed, tile, out, var, row_var);
}
bool encode_half(Matrix<const RawHalf> v, Scales<float> s, CodeSpec c, uint64_t seed, uint64_t tile,
                 uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<RawHalf, float, ToHalf>(v, s, c, seed, tile, out, var, row_var);
}
bool encode_byte(Matrix<const uint8_t> v, Scales<float> s, CodeSpec c, uint64_t seed, uint64_t tile,
                 uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<uint8_t, float, Keep>(v, s, c, seed, tile, out, var, row_var);
}
bool encode_double(Matrix<const double> v, Scales<double> s, CodeSpec c, uint64_t seed,
                   uint64_t tile, uint8_t* out, uint64_t* var, double* row_var) {
  return encode_any<double, double, Keep>(v, s, c, seed, tile, out, var, row_var);
}

}  // namespace ZIPML_ISA
}  // namespace zipml
