// Values of chosen rows of a chunk: no more of the codes is read than the bytes of those rows.

#include "native.hpp"
#include "deliver.hpp"
#include "levels.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

template <class T, class Round, class Out>
ZIPML_INLINE void take_any(const uint8_t* codes, size_t chunk_rows, const int64_t* rows,
                           Scales<T> scales, CodeSpec spec, Matrix<Out> out) {
  constexpr bool same = std::is_same<T, Out>::value;
  const size_t lines = (out.columns + kLanes - 1) / kLanes;
  Buffer<uint8_t> low(lines * kLanes), ninth(lines * kLanes);
  Buffer<T> values(lines * kLanes);
  Buffer<Out> halves(same ? 0 : lines * kLanes);
  Levels<T> levels(scales.by_row ? 1 : out.columns);
  if (!scales.by_row) levels.set_columns(scales, out.columns, spec.intervals());
  const bool plain_columns = levels.plain(0, scales.by_row ? 1 : out.columns);
  for (size_t i = 0; i < out.rows; ++i) {
    const size_t row = static_cast<size_t>(rows[i]);
    const TileBytes tile =
        tile_bytes(codes, chunk_rows, row / kTileRows, out.columns, spec);
    unpack_across(tile, row % kTileRows, low.data(), ninth.data());
    if (scales.by_row) {
      levels.set(0, T(0) - scales.upper[row], scales.upper[row], spec.intervals());
      values_of<T, Round, 0, 0>(low.data(), ninth.data(), lines, levels, 0, levels.plain(0, 1),
                                spec, values.data(), kLanes);
    } else {
      values_of<T, Round, kLanes, 1>(low.data(), ninth.data(), lines, levels, 0, plain_columns,
                                     spec, values.data(), kLanes);
    }
    if (!same) convert(values.data(), out.columns, halves.data());
    const Out* from = same ? reinterpret_cast<const Out*>(values.data()) : halves.data();
    place(from, out.columns, part(out, i, 1, 0, out.columns), false);
  }
}

}  // namespace

void take_float(const uint8_t* codes, size_t chunk_rows, const int64_t* rows, Scales<float> s,
                CodeSpec c, Matrix<float> out) {
  take_any<float, Keep, float>(codes, chunk_rows, rows, s, c, out);
}
void take_half(const uint8_t* codes, size_t chunk_rows, const int64_t* rows, Scales<float> s,
               CodeSpec c, Matrix<float> out) {
  take_any<float, ToHalf, float>(codes, chunk_rows, rows, s, c, out);
}
void take_double(const uint8_t* codes, size_t chunk_rows, const int64_t* rows, Scales<double> s,
                 CodeSpec c, Matrix<double> out) {
  take_any<double, Keep, double>(codes, chunk_rows, rows, s, c, out);
}
void take_float_as_half(const uint8_t* codes, size_t chunk_rows, const int64_t* rows,
                        Scales<float> s, CodeSpec c, Matrix<uint16_t> out) {
  take_any<float, Keep, Half>(codes, chunk_rows, rows, s, c, out);
}
void take_half_as_half(const uint8_t* codes, size_t chunk_rows, const int64_t* rows,
                       Scales<float> s, CodeSpec c, Matrix<uint16_t> out) {
  take_any<float, ToHalf, Half>(codes, chunk_rows, rows, s, c, out);
}

}  // namespace ZIPML_ISA
}  // namespace zipml
