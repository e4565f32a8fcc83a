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

template <class Source>
ZIPML_INLINE void byte_rows(const Source& source, size_t columns, const int8_t* weights, int32_t out[64]) {
  int32_t sums[64] = {};
  for (size_t j = 0; j < columns; ++j) {
    const ByteColumn digits = source.column(j);
    const int16_t weight = weights[j];
    for (size_t r = 0; r < 64; ++r) sums[r] += static_cast<int16_t>(weight * digits.byte[r]);
  }
  std::memcpy(out, sums, sizeof(sums));
}

template <size_t Tiles, class Source>
inline void byte_columns_of(const Source* sources, const uint8_t* const* ahead, size_t columns,
                            const int8_t* residuals, int32_t* out) {
  (void)ahead;
  for (size_t j = 0; j < columns; ++j) {
    int32_t sum = 0;
    for (size_t t = 0; t < Tiles; ++t) {
      const ByteColumn digits = sources[t].column(j);
      const int8_t* r = residuals + 64 * t;
      for (size_t i = 0; i < 64; ++i) sum += static_cast<int16_t>(r[i] * digits.byte[i]);
    }
    out[j] = sum;
  }
}

template <int W>
inline void dot_rows(const uint8_t* codes, size_t columns, const int8_t* weights, int32_t out[64]) {
  int32_t sums[64] = {};
  uint8_t digits[64];
  for (size_t j = 0; j < columns; ++j) {
    unpack_digits<W>(codes + j * 8 * W, digits);
    const int16_t weight = weights[j];
    for (size_t r = 0; r < 64; ++r) sums[r] += static_cast<int16_t>(weight * digits[r]);
  }
  std::memcpy(out, sums, sizeof(sums));
}

template <int W>
inline void dot_columns(const uint8_t* const* tiles, const uint8_t* const* ahead, size_t count,
                        size_t columns, const int8_t* residuals, int32_t* out) {
  (void)ahead;
  uint8_t digits[64];
  for (size_t j = 0; j < columns; ++j) {
    int32_t sum = 0;
    for (size_t t = 0; t < count; ++t) {
      unpack_digits<W>(tiles[t] + j * 8 * W, digits);
      const int8_t* r = residuals + 64 * t;
      for (size_t i = 0; i < 64; ++i) sum += static_cast<int16_t>(r[i] * digits[i]);
    }
    out[j] = sum;
  }
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
