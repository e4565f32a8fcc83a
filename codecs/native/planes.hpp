// A tile as the kernels take it: planes of digits, each a field of the packed layout, or a byte of
// the level table's entries, or what the bits of the weaved layout add up to. The value of a code is the sum of its digits times 2^shift.
#pragma once

#include "core.hpp"
#include "dots.hpp"
#include "draws.hpp"
#include "lanes.hpp"
#include "layout.hpp"
#include "weave.hpp"

namespace zipml {
namespace ZIPML_ISA {

struct Plane {
  const uint8_t* digits;  // columns of 8 * width bytes
  int width, shift;
  const uint8_t* tables = nullptr;  // 16 entries a column that stand in the digits' place
};

struct TileView {
  const ChunkView* chunk = nullptr;
  size_t row = 0, rows = 0;  // first row in the chunk, rows
  uint64_t id = 0;           // number of the tile in the dataset
  Plane planes[4];
  int count = 0;
  Plane first[4];  // the first of two samples, where they are drawn apart
  Plane base;      // of the weaved layout, where it was asked for: the bases of the codes

  ZIPML_INLINE float scale(size_t r) const { return chunk->row_scale ? chunk->row_scale[row + r] : 1.0f; }
};

ZIPML_INLINE int field_planes(const uint8_t* tile, size_t columns, int stored_bits, Plane out[4]) {
  int count = 0;
  for_each_field(stored_bits, columns, kTileRows, [&](int width, int shift, size_t base) __attribute__((always_inline)) {
    out[count++] = {tile + base, width, shift, nullptr};
  });
  return count;
}

// Digits of one column of a full tile, a byte a row. Eight rows at a time are a word: word q is
// digit q / W of the column's word q mod W.
template <int W>
ZIPML_INLINE void unpack_field_bytes(const uint8_t* column, int shift, bool add, uint8_t z[64]) {
  constexpr uint64_t mask = 0x0101010101010101u * ((1u << W) - 1);
  uint64_t words[W], out[8];
  std::memcpy(words, column, sizeof(words));
  if (add) std::memcpy(out, z, 64);
#pragma GCC unroll 8
  for (int q = 0; q < 8; ++q) {
    const uint64_t digits = ((words[q % W] >> (W * (q / W))) & mask) << shift;
    out[q] = add ? out[q] | digits : digits;
  }
  std::memcpy(z, out, 64);
}

// Codes of up to eight stored bits of one column.
template <int W>  // of the only plane, or 0
ZIPML_INLINE void unpack_bytes(const Plane* planes, int count, size_t j, uint8_t z[64]) {
  if constexpr (W > 0) return unpack_field_bytes<W>(planes[0].digits + j * 8 * W, 0, false, z);
  for (int p = 0; p < count; ++p) {
    const uint8_t* column = planes[p].digits + j * 8 * static_cast<size_t>(planes[p].width);
    switch (planes[p].width) {
      case 8: unpack_field_bytes<8>(column, planes[p].shift, p > 0, z); break;
      case 4: unpack_field_bytes<4>(column, planes[p].shift, p > 0, z); break;
      case 2: unpack_field_bytes<2>(column, planes[p].shift, p > 0, z); break;
      default: unpack_field_bytes<1>(column, planes[p].shift, p > 0, z); break;
    }
  }
}

// The words of one column of a field of two, four or eight bits.
template <int W>
struct WordsOf;
template <>
struct WordsOf<2> { typedef uint64_t Type __attribute__((vector_size(16))); };
template <>
struct WordsOf<4> { typedef uint64_t Type __attribute__((vector_size(32))); };
template <>
struct WordsOf<8> { typedef uint64_t Type __attribute__((vector_size(64))); };

// Where level tables are applied: ahead of the products, once for all of them, or by each of them in
// registers, which is the faster one for the two products of int8 where one shuffle looks up.
enum class LookUp { kAhead, kInProducts };

ZIPML_INLINE bool in_products(const Affine& affine, LookUp look_up) {
  const int bits = affine.stored_bits;
  return look_up == LookUp::kInProducts && affine.tables[0] && (bits == 1 || bits == 2 || bits == 4);
}

// Bytes that hold the codes of the weaved layout: one, but where the last code does not fit it.
ZIPML_INLINE size_t woven_digits(const Affine& affine) {
  return (affine.woven << (affine.stored_bits - affine.woven)) > 255 ? 2 : 1;
}

// Loads tiles for a group of kernel calls. Whole tiles are used where they lie; a ragged one is
// padded with zero codes; with level tables, codes are replaced by table entries.
class Loader {
 public:
  Loader(const ChunkView* chunks, Affine affine, size_t slots, bool split, uint64_t seed, uint32_t draw,
         LookUp look_up = LookUp::kAhead, bool bases = false)
      : chunks_(chunks), affine_(affine), split_(split), bases_(bases), in_products_(in_products(affine, look_up)),
        key_(seed), draw_(draw), tile_bytes_(affine.columns * static_cast<size_t>(affine.stored_bits) * 8) {
    if (affine.tables[0] && !in_products_) {
      expanded_.reset(slots * (split ? 2 : 1) * affine.table_bytes * affine.columns * kTileRows);
    }
    slots_ = slots;
    if (affine.woven) {
      expanded_.reset(slots * (split || bases ? 2 : 1) * woven_digits(affine) * affine.columns * kTileRows);
    } else if (split) {
      firsts_.reset(slots * tile_bytes_);
    }
  }

  void view(size_t slot, TileRef ref, TileView& out) {
    out.chunk = chunks_ + ref.chunk;
    out.row = ref.tile * kTileRows;
    out.rows = rows_in_tile(out.chunk->rows, ref.tile);
    out.id = out.chunk->first_tile + ref.tile;
    if (affine_.woven) return put_together(slot, ref.tile, out);
    const uint8_t* tile = out.chunk->codes + tile_offset(ref.tile, affine_.columns, affine_.stored_bits);
    if (slots_in_tile(out.rows) < kTileRows) tile = pad(slot, tile, slots_in_tile(out.rows));
    out.count = field_planes(tile, affine_.columns, affine_.stored_bits, out.planes);
    if (split_) draw_first(slot, tile, out);
    if (in_products_) return keep_tables(out);
    if (affine_.tables[0]) expand(slot, out);
  }

 private:
  const uint8_t* pad(size_t slot, const uint8_t* tile, size_t slots) {
    if (padded_.size() == 0) padded_.reset(slots_ * tile_bytes_);
    uint8_t* out = padded_.data() + slot * tile_bytes_;
    uint16_t z[64];
    for (size_t j = 0; j < affine_.columns; ++j) {
      unpack_column(tile, slots, affine_.stored_bits, affine_.columns, j, z);
      pack_column(z, kTileRows, affine_.stored_bits, affine_.columns, j, out);
    }
    return out;
  }

  // The same digits for each byte of the entries.
  void keep_tables(TileView& view) const {
    view.count = static_cast<int>(affine_.table_bytes);
    for (size_t b = 0; b < affine_.table_bytes; ++b) {
      view.planes[b] = {view.planes[0].digits, affine_.stored_bits, static_cast<int>(8 * b), affine_.tables[b]};
    }
  }

  // Replaces codes by the entries of each column's table. A single sample of two with code c has
  // the entry of the sum 2 c; of a sum that no writer makes, all bits set, it has the entry itself.
  void expand(size_t slot, TileView& view) {
    const size_t part = affine_.table_bytes * affine_.columns * kTileRows;
    uint8_t* out = expanded_.data() + slot * (split_ ? 2 : 1) * part;
    if (split_) expand_planes(view.first, view.count, true, out + part);
    view.count = expand_planes(view.planes, view.count, false, out);
  }

  int expand_planes(Plane planes[4], int count, bool doubled, uint8_t* out) {
    switch (count == 1 ? planes[0].width : 0) {
      case 8: expand_columns<8>(planes, count, doubled, out); break;
      case 4: expand_columns<4>(planes, count, doubled, out); break;
      case 2: expand_columns<2>(planes, count, doubled, out); break;
      case 1: expand_columns<1>(planes, count, doubled, out); break;
      default: expand_columns<0>(planes, count, doubled, out); break;
    }
    const size_t plane_bytes = affine_.columns * kTileRows;
    for (size_t b = 0; b < affine_.table_bytes; ++b) planes[b] = {out + b * plane_bytes, 8, static_cast<int>(8 * b), nullptr};
    return static_cast<int>(affine_.table_bytes);
  }

  template <int W>
  void expand_columns(const Plane* planes, int count, bool doubled, uint8_t* out) {
    const size_t plane_bytes = affine_.columns * kTileRows;
    const uint8_t top = static_cast<uint8_t>((1 << affine_.stored_bits) - 1);
    alignas(64) uint8_t z[64];
    for (size_t j = 0; j < affine_.columns; ++j) {
      unpack_bytes<W>(planes, count, j, z);
      if (doubled) for (size_t r = 0; r < 64; ++r) z[r] = z[r] > top / 2 ? top : static_cast<uint8_t>(z[r] << 1);
      for (size_t b = 0; b < affine_.table_bytes; ++b) {
        look_up(affine_.tables[b] + j * affine_.table_stride, affine_.table_stride, z,
                out + b * plane_bytes + j * kTileRows);
      }
    }
  }

  // Codes of the weaved layout, a byte or two a row. Base and samples stay apart where their sum does
  // not fit a byte. The first sample's code is the base and one bit, in digits of the same weights.
  void put_together(size_t slot, size_t number, TileView& view) {
    const WovenTile tile = woven_tile(view.chunk->codes, view.chunk->rows, number, affine_.columns,
                                      affine_.stored_bits, affine_.woven);
    const size_t digits = woven_digits(affine_), part = affine_.columns * kTileRows;
    uint8_t* out = expanded_.data() + slot * (split_ || bases_ ? 2 : 1) * digits * part;
    view.count = static_cast<int>(digits);
    view.base = {digits == 2 ? out : out + part, 8, 0, nullptr};
    for (size_t d = 0; d < digits; ++d) {
      const int shift = digits == 2 && d == 0 ? affine_.woven - 1 : 0;
      view.planes[d] = {out + d * part, 8, shift, nullptr};
      view.first[d] = {out + (digits + d) * part, 8, shift, nullptr};
    }
    const size_t bytes = slots_in_tile(view.rows) / 8;
    for (size_t j = 0; j < affine_.columns; ++j) {
      const auto bits = [&](const uint8_t* plane) __attribute__((always_inline)) {
        return row_bits(bytes == 8 ? load_word(plane + 8 * j) : padded_word(plane + bytes * j, bytes));
      };
      RowBytes base{};
      for (int b = tile.bits - 1; b >= 0; --b) base = base + base + bits(tile.base(b));
      const RowBytes one = bits(tile.sample(0));
      const RowBytes both = tile.samples == 2 ? one + bits(tile.sample(1)) : one;
      uint8_t* to = out + j * kTileRows;
      if (digits == 2) {
        store_rows(base, to);
        store_rows(both, to + part);
      } else {
        store_rows((tile.samples == 2 ? base + base : base) + both, to);
        if (bases_) store_rows(base, to + part);
      }
      if (!split_) continue;
      const RowBytes low = RowBytes{} + kRowOnes;
      if (digits == 2) {
        store_rows(((base >> 1) & (low * 127)) + (base & one & low), to + 2 * part);
        store_rows((base ^ one) & low, to + 3 * part);
      } else {
        store_rows(base + one, to + part);
      }
    }
  }

  // A byte for each of the 64 rows: word q holds the rows 8 q on, and bit q of byte k of a column's
  // plane is row 8 q + k.
  using RowBytes = WordsOf<8>::Type;
  static constexpr uint64_t kRowOnes = 0x0101010101010101u;

  static ZIPML_INLINE uint64_t load_word(const uint8_t* column) {
    uint64_t word;
    std::memcpy(&word, column, 8);
    return word;
  }
  static ZIPML_INLINE RowBytes row_bits(uint64_t word) {
    const RowBytes count = {0, 1, 2, 3, 4, 5, 6, 7};
    return ((RowBytes{} + word) >> count) & kRowOnes;
  }
  static ZIPML_INLINE void store_rows(const RowBytes& v, uint8_t* out) { std::memcpy(out, &v, sizeof(v)); }

  // A column of a tile that has fewer rows, as a whole tile has it.
  static uint64_t padded_word(const uint8_t* column, size_t bytes) {
    uint64_t word = 0;
    for (size_t r = 0; r < 8 * bytes; ++r) {
      const uint64_t bit = column[r % bytes] >> (r / bytes) & 1;
      word |= bit << (8 * (r % 8) + r / 8);
    }
    return word;
  }

  // The two samples behind a sum of codes: where they differ, a fair bit says which rounded up.
  void draw_first(size_t slot, const uint8_t* tile, TileView& view) {
    uint8_t* out = firsts_.data() + slot * tile_bytes_;
    field_planes(out, affine_.columns, affine_.stored_bits, view.first);
    alignas(64) uint16_t draws[4][64];  // of 64 columns: a word of 64 bits for each
    for (size_t j = 0; j < affine_.columns; j += 64) {
      const uint32_t group = static_cast<uint32_t>(j / 16);
      const uint64_t ids[4] = {view.id, view.id, view.id, view.id};
      const uint32_t groups[4] = {group, group + 1, group + 2, group + 3};
      rounding_draws<4>(key_, Purpose::kSplit, ids, groups, draw_, draws);
      const size_t end = least(affine_.columns, j + 64);
      switch (affine_.stored_bits) {
        case 2: first_block<2>(tile, j, end, draws, out); break;
        case 4: first_block<4>(tile, j, end, draws, out); break;
        case 8: first_block<8>(tile, j, end, draws, out); break;
        default: first_block<0>(tile, j, end, draws, out); break;
      }
    }
  }

  template <int W>
  ZIPML_INLINE void first_block(const uint8_t* tile, size_t begin, size_t end, const uint16_t draws[4][64],
                                uint8_t* out) {
    for (size_t j = begin; j < end; ++j) {
      uint64_t mask;
      std::memcpy(&mask, &draws[0][0] + 4 * (j - begin), 8);
      if constexpr (W > 0) {
        first_digits<W>(tile, j, mask, out);
      } else {
        first_codes(tile, j, mask, out);
      }
    }
  }

  // Bit 8 (r mod 8) + r / 8 of a mask is that of row r (docs/format.md), so that a shift by the number
  // of an eight-byte word brings it under the lowest bit of each digit.
  template <int W>
  static ZIPML_INLINE void first_digits(const uint8_t* tile, size_t j, uint64_t mask, uint8_t* out) {
    using Words = typename WordsOf<W>::Type;
    constexpr uint64_t ones = ~uint64_t{0} / ((1u << W) - 1);
    Words count{};
    for (int g = 0; g < W; ++g) count[g] = static_cast<uint64_t>(g);
    Words v;
    std::memcpy(&v, tile + j * 8 * W, sizeof(v));
    const Words low = (v >> 1) & (ones * ((1u << (W - 1)) - 1));
    const Words first = low + (((Words{} + mask) >> count) & v & ones);
    std::memcpy(out + j * 8 * W, &first, sizeof(first));
  }

  void first_codes(const uint8_t* tile, size_t j, uint64_t mask, uint8_t* out) {
    uint16_t z[64];
    unpack_column(tile, kTileRows, affine_.stored_bits, affine_.columns, j, z);
    for (size_t r = 0; r < kTileRows; ++r) {
      const uint64_t up = mask >> (8 * (r % 8) + r / 8) & 1u;
      z[r] = static_cast<uint16_t>((z[r] >> 1) + (up & z[r] & 1u));
    }
    pack_column(z, kTileRows, affine_.stored_bits, affine_.columns, j, out);
  }

  const ChunkView* chunks_;
  Affine affine_;
  bool split_, bases_, in_products_;
  PhiloxKey key_;
  uint32_t draw_;
  size_t tile_bytes_, slots_;
  Buffer<uint8_t> padded_, expanded_, firsts_;
};

}  // namespace ZIPML_ISA
}  // namespace zipml
