// Packs the codes of one block of a whole tile: rows are put together to bytes while columns lie
// in lanes, and then bytes are turned to lie column by column.
#pragma once

#include "column_lanes.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

// Lane by lane of 128 bits: four columns.
#if defined(__AVX512BW__)
ZIPML_INLINE Words low_pair(Words x, Words y) { return (Words)_mm512_unpacklo_epi32((__m512i)x, (__m512i)y); }
ZIPML_INLINE Words high_pair(Words x, Words y) { return (Words)_mm512_unpackhi_epi32((__m512i)x, (__m512i)y); }
ZIPML_INLINE Words low_four(Words x, Words y) { return (Words)_mm512_unpacklo_epi64((__m512i)x, (__m512i)y); }
ZIPML_INLINE Words high_four(Words x, Words y) { return (Words)_mm512_unpackhi_epi64((__m512i)x, (__m512i)y); }
#elif defined(__AVX2__)
ZIPML_INLINE Words low_pair(Words x, Words y) { return (Words)_mm256_unpacklo_epi32((__m256i)x, (__m256i)y); }
ZIPML_INLINE Words high_pair(Words x, Words y) { return (Words)_mm256_unpackhi_epi32((__m256i)x, (__m256i)y); }
ZIPML_INLINE Words low_four(Words x, Words y) { return (Words)_mm256_unpacklo_epi64((__m256i)x, (__m256i)y); }
ZIPML_INLINE Words high_four(Words x, Words y) { return (Words)_mm256_unpackhi_epi64((__m256i)x, (__m256i)y); }
#else
ZIPML_INLINE Words low_pair(Words x, Words y) { return Words{x[0], y[0], x[1], y[1]}; }
ZIPML_INLINE Words high_pair(Words x, Words y) { return Words{x[2], y[2], x[3], y[3]}; }
ZIPML_INLINE Words low_four(Words x, Words y) { return Words{x[0], x[1], y[0], y[1]}; }
ZIPML_INLINE Words high_four(Words x, Words y) { return Words{x[2], x[3], y[2], y[3]}; }
#endif

// Bytes 0, 2, 1, 3 of every word.
ZIPML_INLINE Words middle_swapped(Words x) {
#if defined(__AVX512BW__)
  const __m128i order = _mm_set_epi8(15, 13, 14, 12, 11, 9, 10, 8, 7, 5, 6, 4, 3, 1, 2, 0);
  return (Words)_mm512_shuffle_epi8((__m512i)x, _mm512_broadcast_i32x4(order));
#elif defined(__AVX2__)
  const __m128i order = _mm_set_epi8(15, 13, 14, 12, 11, 9, 10, 8, 7, 5, 6, 4, 3, 1, 2, 0);
  return (Words)_mm256_shuffle_epi8((__m256i)x, _mm256_broadcastsi128_si256(order));
#else
  return (x & 0xFF0000FFu) | ((x & 0xFF00u) << 8) | ((x >> 8) & 0xFF00u);
#endif
}

// Writes `Bytes` rows (16, or 8) of all columns: rows[m] holds the bytes of the rows 2 m and
// 2 m + 1 in the low bytes of its halves. Columns are `distance` bytes apart.
template <size_t Bytes>
ZIPML_INLINE void write_rows(const Halves* rows, uint8_t* out, size_t distance) {
  Words four[4] = {};  // of four rows each
#pragma GCC unroll 4
  for (size_t q = 0; q < Bytes / 4; ++q) {
    four[q] = middle_swapped((Words)((rows[2 * q] & 0xFF) | (rows[2 * q + 1] << 8)));
  }
  const Words a = low_pair(four[0], four[1]), b = low_pair(four[2], four[3]);
  const Words c = high_pair(four[0], four[1]), d = high_pair(four[2], four[3]);
  const Words columns[4] = {low_four(a, b), high_four(a, b), low_four(c, d), high_four(c, d)};
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
#pragma GCC unroll 4
    for (size_t j = 0; j < kLanes / 4; ++j) {
      std::memcpy(out + (4 * j + i) * distance, reinterpret_cast<const char*>(&columns[i]) + 16 * j, Bytes);
    }
  }
}

// Packs one field of a whole tile: 8 Width bytes a column, column after column.
template <int Width>
ZIPML_INLINE void write_field(const Words codes[32], int shift, uint8_t* out) {
  constexpr int kDigits = 8 / Width;
  constexpr uint16_t mask = (1u << Width) - 1;
  // Digit i of byte k is row i * 8 Width + k; sixteen rows make up eight words.
  constexpr size_t kGroups = Width > 1 ? Width / 2 : 1;
  constexpr size_t kWords = Width > 1 ? 8 : 4;
  for (size_t g = 0; g < kGroups; ++g) {
    Halves rows[kWords];
#pragma GCC unroll 8
    for (size_t m = 0; m < kWords; ++m) {
      Halves bytes{};
#pragma GCC unroll 8
      for (int i = 0; i < kDigits; ++i) {
        const Words code = codes[(static_cast<size_t>(i) * kGroups + g) * kWords + m] >> shift;
        bytes |= ((Halves)code & mask) << (i * Width);
      }
      rows[m] = bytes;
    }
    write_rows<2 * kWords>(rows, out + 16 * g, 8 * Width);
  }
}

// Packs the first `columns` columns of a block of a whole tile, `first` being their first.
ZIPML_INLINE void pack_block(const Words codes[32], int stored_bits, size_t all_columns, size_t first,
                             size_t columns, uint8_t* tile) {
  for_each_field(stored_bits, all_columns, kTileRows, [&](int width, int shift, size_t base) {
    const size_t bytes = static_cast<size_t>(width) * (kTileRows / 8);
    alignas(64) uint8_t spare[kLanes * kTileRows];
    uint8_t* place = tile + base + first * bytes;
    uint8_t* out = columns == kLanes ? place : spare;
    switch (width) {
      case 8: write_field<8>(codes, shift, out); break;
      case 4: write_field<4>(codes, shift, out); break;
      case 2: write_field<2>(codes, shift, out); break;
      default: write_field<1>(codes, shift, out); break;
    }
    if (out == spare) std::memcpy(place, spare, columns * bytes);
  });
}

// The same for blocks whose lanes are the last columns, from `first` on, of `tiles` tiles that lie
// `distance` bytes apart.
ZIPML_INLINE void pack_side_by_side(const Words codes[32], int stored_bits, size_t all_columns,
                                    size_t first, size_t tiles, uint8_t* tile, size_t distance) {
  alignas(64) uint8_t spare[kLanes * kTileRows * 2];
  pack_block(codes, stored_bits, kLanes, 0, kLanes, spare);
  const size_t columns = all_columns - first;
  const uint8_t* from = spare;
  for_each_field(stored_bits, all_columns, kTileRows, [&](int width, int, size_t base) {
    const size_t bytes = static_cast<size_t>(width) * (kTileRows / 8);
    for (size_t i = 0; i < tiles; ++i) {
      std::memcpy(tile + i * distance + base + first * bytes, from + i * columns * bytes, columns * bytes);
    }
    from += kLanes * bytes;
  });
}

// The same for a tile of fewer rows, whose bytes hold other rows together: column by column.
ZIPML_INLINE void pack_ragged_block(const Words codes[32], size_t rows, int stored_bits,
                                    size_t all_columns, size_t first, size_t columns, uint8_t* tile) {
  const uint16_t mask = static_cast<uint16_t>((1u << stored_bits) - 1);
  for (size_t c = 0; c < columns; ++c) {
    uint16_t column[kTileRows];
    for (size_t pair = 0; pair < 32; ++pair) {
      const Halves both = (Halves)codes[pair];
      column[2 * pair] = both[2 * c] & mask;
      column[2 * pair + 1] = both[2 * c + 1] & mask;
    }
    for (size_t r = rows; r < kTileRows; ++r) column[r] = 0;
    pack_column(column, slots_in_tile(rows), stored_bits, all_columns, first + c, tile);
  }
}

}  // namespace
}  // namespace ZIPML_ISA
}  // namespace zipml
