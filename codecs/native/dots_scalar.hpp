// dots.hpp in plain C++.
#pragma once

namespace zipml {
namespace ZIPML_ISA {

template <int W>
ZIPML_INLINE void unpack_digits(const uint8_t* in, uint8_t digits[64]) {
  constexpr size_t bytes = 8 * W;
  for (size_t i = 0; i < 8 / W; ++i) {
    for (size_t k = 0; k < bytes; ++k) {
      digits[i * bytes + k] = static_cast<uint8_t>((in[k] >> (i * W)) & ((1u << W) - 1));
    }
  }
}

// Codes as bytes: 64 rows of a column.
struct ByteColumn {
  uint8_t byte[64];
};
ZIPML_INLINE ByteColumn load_bytes(const uint8_t* from) {
  ByteColumn out;
  std::memcpy(out.byte, from, 64);
  return out;
}

// A column of a field, unpacked.
template <int W>
struct FieldBytes {
  const uint8_t* codes;
  ZIPML_INLINE ByteColumn column(size_t j) const {
    ByteColumn out;
    unpack_digits<W>(codes + 8 * W * j, out.byte);
    return out;
  }
};

template <class Source>
inline void byte_rows(const Source& source, size_t columns, const int8_t* weights, size_t count, size_t stride,
                      int32_t* out, const uint8_t*) {
  constexpr size_t kSharing = 4;
  for (size_t first = 0; first < count; first += kSharing) {
    int32_t sums[kSharing][64] = {};
    const size_t now = least(kSharing, count - first);
    for (size_t j = 0; j < columns; ++j) {
      const ByteColumn digits = source.column(j);
      for (size_t n = 0; n < now; ++n) {
        const int16_t weight = weights[(first + n) * stride + j];
        for (size_t r = 0; r < 64; ++r) sums[n][r] += static_cast<int16_t>(weight * digits.byte[r]);
      }
    }
    std::memcpy(out + 64 * first, sums, 64 * now * sizeof(int32_t));
  }
}
template <int W>
inline void dot_rows(const uint8_t* codes, size_t columns, const int8_t* weights, size_t count, size_t stride,
                     int32_t* out, const uint8_t* ahead) {
  byte_rows(FieldBytes<W>{codes}, columns, weights, count, stride, out, ahead);
}

template <size_t N, size_t Tiles, class Source>
inline void byte_columns_of(const Source* sources, const uint8_t* const*, size_t columns, const int8_t* residuals,
                            size_t stride, int32_t* out, size_t out_stride) {
  for (size_t j = 0; j < columns; ++j) {
    int32_t sum[N] = {};
    for (size_t t = 0; t < Tiles; ++t) {
      const ByteColumn digits = sources[t].column(j);
      for (size_t n = 0; n < N; ++n) {
        const int8_t* r = residuals + n * stride + 64 * t;
        for (size_t i = 0; i < 64; ++i) sum[n] += static_cast<int16_t>(r[i] * digits.byte[i]);
      }
    }
    for (size_t n = 0; n < N; ++n) out[n * out_stride + j] = sum[n];
  }
}
template <int W, size_t N, size_t Tiles>
inline void dot_columns_of(const uint8_t* const* tiles, const uint8_t* const* ahead, size_t columns,
                           const int8_t* residuals, size_t stride, int32_t* out, size_t out_stride) {
  FieldBytes<W> sources[Tiles];
  for (size_t t = 0; t < Tiles; ++t) sources[t] = {tiles[t]};
  byte_columns_of<N, Tiles>(sources, ahead, columns, residuals, stride, out, out_stride);
}

ZIPML_INLINE void look_up(const uint8_t* table, size_t entries, const uint8_t z[64], uint8_t out[64]) {
  (void)entries;
  for (size_t r = 0; r < 64; ++r) out[r] = table[z[r]];
}

template <int W>
ZIPML_INLINE ByteColumn look_up_digits(const uint8_t* table, const uint8_t* column) {
  ByteColumn out;
  uint8_t z[64];
  unpack_digits<W>(column, z);
  for (size_t r = 0; r < 64; ++r) out.byte[r] = table[z[r]];
  return out;
}

}  // namespace ZIPML_ISA
}  // namespace zipml
