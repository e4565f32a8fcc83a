// Unpacking of one chunk, or of some of its tiles or rows, to floating point.
//
// Codes become bytes, 16 of one row (or of one column) next to each other; bytes become values, 16
// at a time; values go straight to the output where its memory lies in the same order, else by
// way of a scratch block.

#include "native.hpp"
#include "deliver.hpp"
#include "levels.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

constexpr size_t kPanel = 1024;       // columns that are unpacked at once
constexpr size_t kDirectPanel = 64;   // without a scratch block
constexpr size_t kScratch = 4096;     // values of the scratch block, but four rows at least

template <class T, class Round, class Out>
class Decoder {
 public:
  Decoder(const uint8_t* codes, size_t chunk_rows, size_t first_tile, Scales<T> scales,
          CodeSpec spec, bool stream, Matrix<Out> out)
      : codes_(codes), chunk_rows_(chunk_rows), first_tile_(first_tile), scales_(scales),
        spec_(spec), out_(out), levels_(scales.by_row ? kTileRows : out.columns), stream_(stream) {
    if (!scales.by_row) levels_.set_columns(scales, out.columns, spec.intervals());
  }

  void run() {
    const bool unit = out_.column_stride == 1;
    const size_t row_bytes = out_.columns * sizeof(Out);
    const bool dense = out_.row_stride == static_cast<ptrdiff_t>(out_.columns);
    // Rows that end within a cache line share it with the next one: short ones only if dense.
    stream_ = stream_ && unit && (dense || row_bytes >= 1024);
    direct_ = unit && !stream_ && kSame;
    // Few columns do not fill a line, and in Fortran order a line runs down its column.
    if (out_.columns < kLanes || (out_.row_stride == 1 && !unit)) {
      down();
    } else {
      across();
    }
    if (stream_) fence();
  }

 private:
  ZIPML_INLINE TileBytes tile(size_t t) const {
    return tile_bytes(codes_, chunk_rows_, first_tile_ + t, out_.columns, spec_);
  }

  ZIPML_INLINE void set_rows(size_t t, size_t rows) {
    for (size_t r = 0; r < rows; ++r) {
      const T s = scales_.upper[t * kTileRows + r];
      levels_.set(r, T(0) - s, s, spec_.intervals());
    }
  }

  // Rows of 16 columns. Where the columns are no multiple of 16 the last block overlaps the one
  // before it. The scratch block holds so few rows that it stays in the first cache, and is as
  // wide as the output so that its rows leave as one run.
  void across() {
    const size_t panel = least(direct_ ? kDirectPanel : kPanel, out_.columns);
    const size_t most = panel + kLanes;  // the last panel takes what would be too narrow
    blocks_.reset((most + kLanes - 1) / kLanes);
    scratch_.reset(direct_ ? 0 : greatest(kScratch, 4 * most));
    halves_.reset(direct_ || kSame ? 0 : greatest(kScratch, 4 * most));
    for (size_t t = 0; t < tile_count(out_.rows); ++t) {
      const size_t rows = rows_in_tile(out_.rows, t);
      if (scales_.by_row) set_rows(t, rows);
      size_t width;
      for (size_t c0 = 0; c0 < out_.columns; c0 += width) {
        const size_t left = out_.columns - c0;
        width = left < most ? left : panel;
        for (size_t b = 0; b * kLanes < width; ++b) {
          unpack_rows(tile(t), c0 + least(b * kLanes, width - kLanes), blocks_[b]);
        }
        const size_t some = direct_ ? rows : greatest<size_t>(4, kScratch / width);
        for (size_t r0 = 0; r0 < rows; r0 += some) {
          const size_t count = least(some, rows - r0);
          panel_of_values(part(out_, t * kTileRows + r0, count, c0, width), r0, c0);
        }
      }
    }
  }

  // Values of rows r0 on of the tile, columns c0 on.
  ZIPML_INLINE void panel_of_values(const Matrix<Out>& to, size_t r0, size_t c0) {
    T* at = direct_ ? reinterpret_cast<T*>(to.data) : scratch_.data();
    const ptrdiff_t stride = direct_ ? to.row_stride : static_cast<ptrdiff_t>(to.columns);
    const bool plain = scales_.by_row && levels_.plain(r0, to.rows);
    for (size_t b = 0; b * kLanes < to.columns; ++b) {
      const size_t c = least(b * kLanes, to.columns - kLanes);
      const uint8_t* low = blocks_[b].low[r0];
      const uint8_t* ninth = blocks_[b].ninth[r0];
      if (scales_.by_row) {
        values_of<T, Round, 1, 0>(low, ninth, to.rows, levels_, r0, plain, spec_, at + c, stride);
      } else {
        values_of<T, Round, 0, 1>(low, ninth, to.rows, levels_, c0 + c,
                                  levels_.plain(c0 + c, kLanes), spec_, at + c, stride);
      }
    }
    if (!direct_) place(converted(to.rows * to.columns), to.columns, to, stream_);
  }

  // The first `count` values of the scratch block as the output has them.
  ZIPML_INLINE const Out* converted(size_t count) {
    if (kSame) return reinterpret_cast<const Out*>(scratch_.data());
    convert(scratch_.data(), count, halves_.data());
    return halves_.data();
  }

  // Columns of 64 rows, 16 columns by way of the scratch block.
  void down() {
    const bool direct = out_.row_stride == 1 && kSame;
    scratch_.reset(kTileRows * kLanes);
    halves_.reset(kTileRows * kLanes);
    turned_.reset(kTileRows * kLanes);
    alignas(64) uint8_t low[kTileRows], ninth[kTileRows];
    for (size_t t = 0; t < tile_count(out_.rows); ++t) {
      const size_t rows = rows_in_tile(out_.rows, t);
      if (scales_.by_row) set_rows(t, rows);
      for (size_t c0 = 0; c0 < out_.columns; c0 += kLanes) {
        const Matrix<Out> to =
            part(out_, t * kTileRows, rows, c0, least(kLanes, out_.columns - c0));
        const bool straight = direct && rows == kTileRows;
        for (size_t c = 0; c < to.columns; ++c) {
          unpack_down(tile(t), c0 + c, low, ninth);
          T* at = straight ? reinterpret_cast<T*>(to.data) +
                                 static_cast<ptrdiff_t>(c) * to.column_stride
                           : scratch_.data() + c * kTileRows;
          column_of_values(low, ninth, rows, c0 + c, at);
        }
        if (!straight) turn(converted(to.columns * kTileRows), to);
      }
    }
  }

  ZIPML_INLINE void column_of_values(const uint8_t* low, const uint8_t* ninth, size_t rows,
                                     size_t c, T* at) {
    constexpr size_t lines = kTileRows / kLanes;
    if (scales_.by_row) {
      values_of<T, Round, kLanes, 1>(low, ninth, lines, levels_, 0, levels_.plain(0, rows), spec_,
                                     at, kLanes);
    } else {
      values_of<T, Round, 0, 0>(low, ninth, lines, levels_, c, levels_.plain(c, 1), spec_, at,
                                kLanes);
    }
  }

  // Writes columns of 64 values to a matrix of any order.
  ZIPML_INLINE void turn(const Out* from, const Matrix<Out>& to) {
    if (to.column_stride != 1) {
      for (size_t c = 0; c < to.columns; ++c) {
        Out* column = to.data + static_cast<ptrdiff_t>(c) * to.column_stride;
        for (size_t r = 0; r < to.rows; ++r) {
          column[static_cast<ptrdiff_t>(r) * to.row_stride] = from[c * kTileRows + r];
        }
      }
      return;
    }
    Out* next = turned_.data();
    for (size_t r = 0; r < to.rows; ++r) {
      for (size_t c = 0; c < to.columns; ++c) *next++ = from[c * kTileRows + r];
    }
    place(turned_.data(), to.columns, to, stream_);
  }

  static constexpr bool kSame = std::is_same<T, Out>::value;

  const uint8_t* codes_;
  size_t chunk_rows_, first_tile_;
  Scales<T> scales_;
  CodeSpec spec_;
  Matrix<Out> out_;
  Levels<T> levels_;
  Buffer<CodeBlock> blocks_;  // zeroed: where codes have eight bits the ninth stays so
  Buffer<T> scratch_;
  Buffer<Out> halves_, turned_;
  bool stream_, direct_ = false;
};

}  // namespace

void decode_float(const uint8_t* codes, size_t rows, size_t tile, Scales<float> s,
                  CodeSpec c, bool stream, Matrix<float> out) {
  Decoder<float, Keep, float>(codes, rows, tile, s, c, stream, out).run();
}
void decode_half(const uint8_t* codes, size_t rows, size_t tile, Scales<float> s,
                 CodeSpec c, bool stream, Matrix<float> out) {
  Decoder<float, ToHalf, float>(codes, rows, tile, s, c, stream, out).run();
}
void decode_double(const uint8_t* codes, size_t rows, size_t tile, Scales<double> s,
                   CodeSpec c, bool stream, Matrix<double> out) {
  Decoder<double, Keep, double>(codes, rows, tile, s, c, stream, out).run();
}
void decode_float_as_half(const uint8_t* codes, size_t rows, size_t tile, Scales<float> s,
                          CodeSpec c, bool stream, Matrix<uint16_t> out) {
  Decoder<float, Keep, Half>(codes, rows, tile, s, c, stream, out).run();
}
void decode_half_as_half(const uint8_t* codes, size_t rows, size_t tile, Scales<float> s,
                         CodeSpec c, bool stream, Matrix<uint16_t> out) {
  Decoder<float, ToHalf, Half>(codes, rows, tile, s, c, stream, out).run();
}

}  // namespace ZIPML_ISA
}  // namespace zipml
