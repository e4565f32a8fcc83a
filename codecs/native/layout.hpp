// The packed layout: where the code of a row and a column lies. Specified in docs/format.md.
//
// A tile is 64 rows of all columns. A stored code of s bits is cut into fields whose widths are
// the powers of two of s, widest first, the widest holding the lowest bits (s = 7: 4, 2, 1). A
// tile holds field after field; a field holds column after column; a column of a field is
// slots * width / 8 bytes, byte k carrying in digit i the row i * bytes + k.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define ZIPML_INLINE inline __attribute__((always_inline))

namespace zipml {

constexpr size_t kTileRows = 64;

ZIPML_INLINE size_t tile_count(size_t rows) { return (rows + kTileRows - 1) / kTileRows; }

ZIPML_INLINE size_t rows_in_tile(size_t rows, size_t tile) {
  const size_t left = rows - tile * kTileRows;
  return left < kTileRows ? left : kTileRows;
}

// Row slots that a tile stores: its rows, rounded up to whole bytes of one-bit fields.
ZIPML_INLINE size_t slots_in_tile(size_t rows) { return (rows + 7) / 8 * 8; }

ZIPML_INLINE size_t tile_offset(size_t tile, size_t columns, int stored_bits) {
  return tile * columns * static_cast<size_t>(stored_bits) * (kTileRows / 8);
}

ZIPML_INLINE size_t codes_size(size_t rows, size_t columns, int stored_bits) {
  if (rows == 0) return 0;
  const size_t last = tile_count(rows) - 1;
  return tile_offset(last, columns, stored_bits) +
         columns * slots_in_tile(rows_in_tile(rows, last)) * static_cast<size_t>(stored_bits) / 8;
}

// Calls f(width, shift, base) for every field of a code: base is the field's offset in the tile.
template <class F>
ZIPML_INLINE void for_each_field(int stored_bits, size_t columns, size_t slots, F&& f) {
  int shift = 0;
  size_t base = 0;
  for (int width = 8; width > 0; width >>= 1) {
    if (stored_bits & width) {
      f(width, shift, base);
      shift += width;
      base += columns * slots * static_cast<size_t>(width) / 8;
    }
  }
}

template <int Width>
ZIPML_INLINE void pack_field(const uint16_t* codes, size_t slots, int shift, uint8_t* out) {
  const size_t bytes = slots * Width / 8;
  constexpr uint16_t mask = (1u << Width) - 1;
  for (size_t k = 0; k < bytes; ++k) out[k] = static_cast<uint8_t>((codes[k] >> shift) & mask);
  for (size_t i = 1; i < 8 / Width; ++i) {
    for (size_t k = 0; k < bytes; ++k) {
      out[k] |= static_cast<uint8_t>(((codes[i * bytes + k] >> shift) & mask) << (i * Width));
    }
  }
}

template <int Width>
ZIPML_INLINE void unpack_field(const uint8_t* in, size_t slots, int shift, uint16_t* codes) {
  const size_t bytes = slots * Width / 8;
  constexpr uint8_t mask = (1u << Width) - 1;
  for (size_t i = 0; i < 8 / Width; ++i) {
    for (size_t k = 0; k < bytes; ++k) {
      codes[i * bytes + k] |= static_cast<uint16_t>(((in[k] >> (i * Width)) & mask) << shift);
    }
  }
}

// Packs the 64 codes of one column of a tile (slots beyond the rows hold zero).
ZIPML_INLINE void pack_column(const uint16_t codes[64], size_t slots, int stored_bits,
                              size_t columns, size_t column, uint8_t* tile) {
  for_each_field(stored_bits, columns, slots, [&](int width, int shift, size_t base) __attribute__((always_inline)) {
    uint8_t* out = tile + base + column * (slots * static_cast<size_t>(width) / 8);
    switch (width) {
      case 8: pack_field<8>(codes, slots, shift, out); break;
      case 4: pack_field<4>(codes, slots, shift, out); break;
      case 2: pack_field<2>(codes, slots, shift, out); break;
      default: pack_field<1>(codes, slots, shift, out); break;
    }
  });
}

// Unpacks one column of a tile; slots that the tile does not store read as zero. A full tile
// takes loops of a length that the compiler knows.
ZIPML_INLINE void unpack_column(const uint8_t* tile, size_t slots, int stored_bits, size_t columns,
                                size_t column, uint16_t codes[64]) {
  std::memset(codes, 0, 64 * sizeof(uint16_t));
  for_each_field(stored_bits, columns, slots, [&](int width, int shift, size_t base) __attribute__((always_inline)) {
    const uint8_t* in = tile + base + column * (slots * static_cast<size_t>(width) / 8);
    const bool full = slots == kTileRows;
    switch (width) {
      case 8: full ? unpack_field<8>(in, 64, shift, codes) : unpack_field<8>(in, slots, shift, codes); break;
      case 4: full ? unpack_field<4>(in, 64, shift, codes) : unpack_field<4>(in, slots, shift, codes); break;
      case 2: full ? unpack_field<2>(in, 64, shift, codes) : unpack_field<2>(in, slots, shift, codes); break;
      default: full ? unpack_field<1>(in, 64, shift, codes) : unpack_field<1>(in, slots, shift, codes); break;
    }
  });
}

}  // namespace zipml
