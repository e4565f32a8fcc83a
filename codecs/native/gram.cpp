// Second moments of the stored codes, and norms of rows: what the spectrum of the data and the
// closed-form solution need.
#include "native.hpp"
#include "products.hpp"

namespace zipml {
namespace ZIPML_ISA {
namespace {

constexpr size_t kTogether = 8;  // tiles whose codes are unpacked at once: a kilobyte a column
constexpr size_t kLength = kTogether * kTileRows;
constexpr size_t kBlock = 4;

// Dot products of four columns with four others. A product of 16-bit codes is below 2^18 and 512
// of them fit a sum of 32 bits.
ZIPML_INLINE void block_products(const int16_t* a, const int16_t* b, int32_t out[kBlock * kBlock]) {
  for (size_t i = 0; i < kBlock; ++i) {
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    const int16_t* x = a + i * kLength;
    for (size_t r = 0; r < kLength; ++r) {
      s0 += x[r] * b[r];
      s1 += x[r] * b[kLength + r];
      s2 += x[r] * b[2 * kLength + r];
      s3 += x[r] * b[3 * kLength + r];
    }
    out[i * kBlock] = s0;
    out[i * kBlock + 1] = s1;
    out[i * kBlock + 2] = s2;
    out[i * kBlock + 3] = s3;
  }
}

// What a byte of an entry counts for, and a product of two.
ZIPML_INLINE double weight(size_t bytes) { return bytes == 0 ? 1.0 : bytes == 1 ? 256.0 : 65536.0; }

}  // namespace

// Entries of two bytes are taken as two columns side by side, which the weights put together again.
void gram(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine, double* moments,
          double* sums) {
  const size_t parts = affine.table_bytes == 2 ? 2 : 1;
  const size_t d = affine.columns, digits = d * parts, blocks = (digits + kBlock - 1) / kBlock;
  Buffer<int16_t> codes(blocks * kBlock * kLength);
  Loader loader(chunks, affine, 1, false, 0, 0);
  TileView view;
  std::memset(moments, 0, d * d * sizeof(double));
  std::memset(sums, 0, d * sizeof(double));
  for (size_t t = 0; t < count; t += kTogether) {
    codes.clear();
    for (size_t i = 0; i < least(kTogether, count - t); ++i) {
      loader.view(0, tiles[t + i], view);
      for (size_t v = 0; v < digits; ++v) {
        int16_t* out = codes.data() + v * kLength + i * kTileRows;
        int32_t sum = 0;
        Plane byte = view.planes[v % parts];
        byte.shift = 0;
        const Plane* planes = parts == 2 ? &byte : view.planes;
        for (int b = 0; b < 4; ++b) {
          int32_t z[16];
          store(z, row_codes(planes, parts == 2 ? 1 : view.count, v / parts, b));
          for (size_t r = 0; r < 16; ++r) {
            const size_t row = 16 * static_cast<size_t>(b) + r;
            out[row] = row < view.rows ? static_cast<int16_t>(z[r]) : int16_t{0};
            sum += out[row];
          }
        }
        sums[v / parts] += sum * weight(v % parts);
      }
    }
    for (size_t a = 0; a < blocks; ++a) {
      for (size_t b = a; b < blocks; ++b) {
        int32_t products[kBlock * kBlock];
        block_products(codes.data() + a * kBlock * kLength, codes.data() + b * kBlock * kLength, products);
        for (size_t i = a * kBlock; i < least((a + 1) * kBlock, digits); ++i) {
          for (size_t j = b * kBlock; j < least((b + 1) * kBlock, digits); ++j) {
            moments[i / parts * d + j / parts] +=
                products[i % kBlock * kBlock + j % kBlock] * weight(i % parts + j % parts);
          }
        }
      }
    }
  }
  for (size_t i = 0; i < d; ++i) {
    for (size_t j = 0; j < i; ++j) moments[i * d + j] = moments[j * d + i];
  }
}

void square_norms(const ChunkView* chunks, const TileRef* tiles, size_t count, Affine affine, float* out) {
  Loader loader(chunks, affine, 1, false, 0, 0);
  TileView view;
  for (size_t t = 0; t < count; ++t) {
    loader.view(0, tiles[t], view);
    alignas(64) float scale[64], norm[64];
    for (size_t r = 0; r < kTileRows; ++r) scale[r] = r < view.rows ? view.scale(r) : 0.0f;
    for (int b = 0; b < 4; ++b) {
      const F16 by = load<F16>(scale + 16 * b);
      F16 sum = splat(0.0f);
      for (size_t j = 0; j < affine.columns; ++j) {
        const F16 code = to_float(row_codes(view.planes, view.count, j, b));
        const F16 value = by * (splat(affine.offset[j]) + splat(affine.slope[j]) * code) - splat(affine.centre[j]);
        sum += value * value;
      }
      store(norm + 16 * b, sum);
    }
    std::memcpy(out, norm, view.rows * sizeof(float));
    out += view.rows;
  }
}

}  // namespace ZIPML_ISA
}  // namespace zipml
