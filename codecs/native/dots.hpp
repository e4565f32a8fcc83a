// Exact integer products of packed digits with int8 vectors: what every training kernel of the
// integer paths is made of. One of the three headers below is compiled, by instruction set.
//
// A field of a tile holds `columns` columns of 8 * width bytes (layout.hpp); its digits are
// 0 .. 2^width - 1. All tiles are full here (planes.hpp pads the last one).
//
//   dot_rows<W>     out[64 n + r] = sum over columns of weights[n * stride + j] * digit(j, r), for the
//                   64 rows and `count` vectors, which share what it takes to unpack the digits. Each
//                   is readable for 16 entries beyond the last, and these are zero. Half as many bytes
//                   as are read are brought near from `ahead` on.
//   dot_columns<W>  out[n * out_stride + j] = sum over rows of residuals[n * stride + r] * digit(j, r),
//                   over up to kGroupTiles tiles with 64 residuals each; `out` is writable for 16
//                   entries beyond. Meanwhile every other tile of `ahead` is brought near.
//   byte_rows, byte_columns  the same for digits of eight bits, stored (`Stored`) or looked up column
//                   by column in tables of 16 entries (`LookedUp`), so that they never see memory.
//   look_up         out[r] = table[z[r]], for 64 codes below `entries`, a power of two from 16 to 256;
//                   `table` is readable for 64 bytes at least.
//
// Both read from the cache what both have fetched while they worked on the group of tiles before: each
// one fetches half of the next group, so that memory is never idle and never waited for alone.
//
// Products saturate nowhere: AVX2 adds two of them in 16 bits, so entries are held to
// +-digit_limit(W), and no sum of 16 bits takes more of them than fit. Sums of 32 bits hold
// kMaxDotColumns columns.
#pragma once

#include "core.hpp"
#include "isa.hpp"
#include "layout.hpp"

namespace zipml {
namespace ZIPML_ISA {

constexpr size_t kGroupTiles = 4;

// Largest magnitude of an int8 entry that meets digits of this width: 2 * limit * (2^width - 1)
// stays below 2^15.
constexpr int digit_limit(int width) { return width == 8 ? 64 : 127; }

// Whether the products of columns fetch tile t of the next group: rows fetch the even ones, each in two
// halves, and of a last one without a neighbour its first half only.
constexpr bool columns_fetch(size_t t, size_t tiles) { return t % 2 == 1 || t + 1 == tiles; }

// What a step over rows fetches that reads `bytes` bytes, `begin` bytes behind the first one.
ZIPML_INLINE void fetch_half(const uint8_t* ahead, size_t begin, size_t bytes) {
  if (bytes < 128 && begin % 128) return;  // the line is on its way
  for (size_t i = 0; i < bytes / 2 || i == 0; i += 64) __builtin_prefetch(ahead + begin / 2 + i, 0, 2);
}

}  // namespace ZIPML_ISA
}  // namespace zipml

#if defined(__AVX512VNNI__)
#include "dots_avx512.hpp"
#elif defined(__AVX2__)
#include "dots_avx2.hpp"
#else
#include "dots_scalar.hpp"
#endif

namespace zipml {
namespace ZIPML_ISA {

template <size_t N>
struct Count {
  static constexpr size_t value = N;
};
// Calls f with `count`, at most Most, as a constant.
template <size_t Most, class F>
ZIPML_INLINE void for_count(size_t count, F&& f) {
  if constexpr (Most > 1) {
    if (count < Most) return for_count<Most - 1>(count, f);
  }
  f(Count<Most>{});
}

struct Stored {
  static constexpr size_t kColumnBytes = 64;
  static constexpr bool kLooksUp = false;
  const uint8_t* bytes;
  ZIPML_INLINE ByteColumn column(size_t j) const { return load_bytes(bytes + 64 * j); }
};

template <int W>
struct LookedUp {
  static constexpr size_t kColumnBytes = 8 * W, kEntries = 16;
  static constexpr bool kLooksUp = true;
  const uint8_t *codes, *tables;
  ZIPML_INLINE ByteColumn column(size_t j) const {
    return look_up_digits<W>(tables + kEntries * j, codes + kColumnBytes * j);
  }
};

// Two vectors at a time, over one to four tiles.
template <class Source>
inline void byte_columns(const Source* sources, const uint8_t* const* ahead, size_t tiles, size_t columns,
                         const int8_t* residuals, size_t count, size_t stride, int32_t* out, size_t out_stride) {
  for (size_t n = 0; n < count; n += 2) {
    const int8_t* r = residuals + n * stride;
    int32_t* to = out + n * out_stride;
    for_count<2>(count - n, [&](auto vectors) {
      for_count<4>(tiles, [&](auto group) {
        byte_columns_of<vectors.value, group.value>(sources, ahead, columns, r, stride, to, out_stride);
      });
    });
  }
}
template <int W>
inline void dot_columns(const uint8_t* const* codes, const uint8_t* const* ahead, size_t tiles, size_t columns,
                        const int8_t* residuals, size_t count, size_t stride, int32_t* out, size_t out_stride) {
  for (size_t n = 0; n < count; n += 2) {
    const int8_t* r = residuals + n * stride;
    int32_t* to = out + n * out_stride;
    for_count<2>(count - n, [&](auto vectors) {
      for_count<4>(tiles, [&](auto group) {
        dot_columns_of<W, vectors.value, group.value>(codes, ahead, columns, r, stride, to, out_stride);
      });
    });
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
