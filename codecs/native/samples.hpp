// The samples behind the sums of codes of four or eight that share a base, drawn apart again.
#pragma once

#include "planes.hpp"

namespace zipml {
namespace ZIPML_ISA {

constexpr int kMostSamples = 8;

// Loads a tile as one view for each sample. Of the samples behind a sum, as many rounded up as its
// remainder says, and each choice of them is as likely as any other, to 2^-16.
class SampleLoader {
 public:
  SampleLoader(const ChunkView* chunks, Affine affine, int samples, uint64_t seed, uint32_t draw)
      : affine_(affine), samples_(samples), shift_(samples == 8 ? 3 : 2), key_(seed), draw_(draw),
        fields_(chunks, without_tables(affine), 1, false, 0, 0) {
    const size_t bytes = affine.tables[0] ? affine.table_bytes : 1;
    plane_bytes_ = affine.columns * kTileRows;
    planes_.reset(static_cast<size_t>(samples) * bytes * plane_bytes_);
    size_t next = 0;
    for (int up = 0; up < samples; ++up) {
      first_[up] = static_cast<uint32_t>(next);
      for (uint32_t mask = 0; mask < 1u << samples; ++mask) {
        if (__builtin_popcount(mask) == up) masks_[next++] = static_cast<uint8_t>(mask);
      }
      count_[up] = static_cast<uint32_t>(next) - first_[up];
    }
  }

  // What a code of a sample is to be multiplied by to be in the units of a stored sum.
  float unit() const { return affine_.tables[0] ? 1.0f : static_cast<float>(samples_); }

  void view(TileRef ref, TileView out[kMostSamples]) {
    fields_.view(0, ref, out[0]);
    Plane stored[4];
    const int fields = out[0].count;
    for (int p = 0; p < fields; ++p) stored[p] = out[0].planes[p];
    const int digits = affine_.tables[0] ? static_cast<int>(affine_.table_bytes) : 1;
    for (int i = 0; i < samples_; ++i) {
      if (i > 0) out[i] = out[0];
      out[i].count = digits;
      for (int d = 0; d < digits; ++d) out[i].planes[d] = {plane(i, d, digits), 8, 8 * d, nullptr};
    }
    for (size_t begin = 0; begin < affine_.columns; begin += 4) {
      uint64_t ids[4];
      uint32_t columns[4];
      for (size_t c = 0; c < 4; ++c) {
        ids[c] = out[0].id;
        columns[c] = static_cast<uint32_t>(begin + c);
      }
      alignas(64) uint16_t draws[4][64];
      rounding_draws<4>(key_, Purpose::kSubset, ids, columns, draw_, draws);
      const size_t end = least(affine_.columns, begin + 4);
      for (size_t j = begin; j < end; ++j) part(stored, fields, j, draws[j - begin], digits);
    }
  }

 private:
  static Affine without_tables(Affine affine) {
    affine.tables[0] = affine.tables[1] = nullptr;
    return affine;
  }

  uint8_t* plane(int sample, int digit, int digits) {
    return planes_.data() + static_cast<size_t>(sample * digits + digit) * plane_bytes_;
  }

  // One column: the codes of its samples, or the entries that stand for them.
  void part(const Plane* stored, int fields, size_t j, const uint16_t draws[64], int digits) {
    alignas(64) uint8_t z[64], mask[64], code[64];
    unpack_bytes<0>(stored, fields, j, z);
    const uint8_t low = static_cast<uint8_t>(samples_ - 1);
    const uint8_t top = static_cast<uint8_t>((1 << (affine_.stored_bits - shift_)) - 1);
    for (size_t r = 0; r < 64; ++r) {
      const uint32_t up = z[r] & low;
      mask[r] = masks_[first_[up] + (draws[r] * count_[up] >> 16)];
    }
    for (int i = 0; i < samples_; ++i) {
      for (size_t r = 0; r < 64; ++r) {
        const uint8_t up = static_cast<uint8_t>(static_cast<uint8_t>(z[r] >> shift_) + (mask[r] >> i & 1));
        code[r] = up < top ? up : top;  // no writer makes more
      }
      if (!affine_.tables[0]) {
        std::memcpy(plane(i, 0, 1) + j * kTileRows, code, 64);
        continue;
      }
      // A code c of a sample has the entry of the sum of as many c as there are samples.
      for (size_t r = 0; r < 64; ++r) code[r] = static_cast<uint8_t>(code[r] << shift_);
      for (int d = 0; d < digits; ++d) {
        look_up(affine_.tables[d] + j * affine_.table_stride, affine_.table_stride, code,
                plane(i, d, digits) + j * kTileRows);
      }
    }
  }

  Affine affine_;
  int samples_, shift_;
  PhiloxKey key_;
  uint32_t draw_;
  Loader fields_;
  size_t plane_bytes_;
  Buffer<uint8_t> planes_;  // samples x digits x columns x 64
  uint8_t masks_[256] = {};
  uint32_t first_[kMostSamples] = {}, count_[kMostSamples] = {};
};

}  // namespace ZIPML_ISA
}  // namespace zipml
