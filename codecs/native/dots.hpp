// Exact integer products of packed digits with int8 vectors: what every training kernel of the
// integer paths is made of. One of the three headers below is compiled, by instruction set.
//
// A field of a tile holds `columns` columns of 8 * width bytes (layout.hpp); its digits are
// 0 .. 2^width - 1. All tiles are full here (planes.hpp pads the last one).
//
//   dot_rows<W>     out[r] = sum over columns of weights[j] * digit(j, r), for the 64 rows;
//                   `weights` is readable for 16 entries beyond the last, and these are zero.
//   dot_columns<W>  out[j] = sum over rows of residuals[r] * digit(j, r), over up to kGroupTiles
//                   tiles with 64 residuals each; `out` is writable for 16 entries beyond. Every
//                   other tile of `ahead` is brought near meanwhile: these products read from the
//                   cache, and margins, which come next, would wait for half of their bytes.
//   byte_rows, byte_columns  the same for digits of eight bits, stored (`Stored`) or looked up column
//                   by column in tables of 16 entries (`LookedUp`), so that they never see memory.
//   look_up         out[r] = table[z[r]], for 64 codes below `entries`, a power of two from 16 to 256;
//                   `table` is readable for 64 bytes at least.
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

struct Stored {
  static constexpr size_t kColumnBytes = 64;
  const uint8_t* bytes;
  ZIPML_INLINE ByteColumn column(size_t j) const { return load_bytes(bytes + 64 * j); }
};

template <int W>
struct LookedUp {
  static constexpr size_t kColumnBytes = 8 * W, kEntries = 16;
  const uint8_t *codes, *tables;
  ZIPML_INLINE ByteColumn column(size_t j) const {
    return look_up_digits<W>(tables + kEntries * j, codes + kColumnBytes * j);
  }
};

template <class Source>
inline void byte_columns(const Source* sources, const uint8_t* const* ahead, size_t count, size_t columns,
                         const int8_t* residuals, int32_t* out) {
  switch (count) {
    case 1: return byte_columns_of<1>(sources, ahead, columns, residuals, out);
    case 2: return byte_columns_of<2>(sources, ahead, columns, residuals, out);
    case 3: return byte_columns_of<3>(sources, ahead, columns, residuals, out);
    default: return byte_columns_of<4>(sources, ahead, columns, residuals, out);
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
