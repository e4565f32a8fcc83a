// The float32 peers of the packed kernels: SGD for the squared loss over a table of floats, row by
// row and in mini-batches. benchmarks/kernels/peers.py compiles this for the machine at hand.
//
// A peer that is easy to beat proves nothing, so several forms of each are here; the benchmark
// times all of them on the table at hand and keeps the fastest. All of them are the same
// algorithm: every row sees the model that the row (or the mini-batch) before it left.
//
// Row by row, the chain of one row is: dot product, horizontal sum, update; the next row waits for
// it. With 8 columns that is some 35 cycles for 8 values. Forms of the row kernel:
//   plain  dot product in several accumulators, then the update: what one would write first
//   fused  the update by one row and the dot product of the next one in a single pass
//   gram2, gram4
//          K rows at a time: one pass takes the K margins and the K (K - 1) / 2 inner products of
//          the rows; from these, the K residuals follow one after another in a few scalar
//          operations (a change of w by c x_i changes the margin of row j by c x_i.x_j); one pass
//          updates w by all K rows. The model is read and written K times less often, and the
//          inner products do not wait for the model.
//   narrow (up to 16 columns) the same with K = 8, transposed in registers, the model in registers
// Mini-batches take 1, 2, 4 or 8 rows at a time through both passes while those are in the
// first-level cache (plain, block2 to block8), or 8 rows transposed in registers (narrow).
//
// On one Zen 4 core with AVX-512 (32 KB, 1 MB and 32 MB of cache; it reads memory at 6 to 7 10^9
// floats a second), a table of 168 MB, best of nine runs, 10^9 values a second:
//
//   columns         8      12      90     100    784   1024   5000
//   row, plain    0.5     0.8     4.6     5.0    6.1    6.3    3.1
//   row, best     2.5     2.5     6.4     6.7    6.1    6.3    4.2
//     by       narrow  narrow   gram2   gram2  plain  plain  gram4
//   batch, best   5.6     5.5     7.7     6.7    5.6    6.1    4.7
//     by       narrow  narrow  block2  block2  plain  plain block8
//
// Tried and left out, for it was never the fastest: prefetching by software (the next block of
// rows during the update, or 0.5 to 4 KB ahead in the first pass; into the first or the second
// level), a fused form of the mini-batch, and margins row by row before a block's gradient.
// Four or eight rows at once lose against one after another until a row is far longer than a page.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define INLINE inline __attribute__((always_inline))

namespace {

template <int N>
struct Vector {
  typedef float type __attribute__((vector_size(4 * N)));
  typedef float unaligned __attribute__((vector_size(4 * N), aligned(4), may_alias));
  typedef int32_t mask __attribute__((vector_size(4 * N)));
};
using V = Vector<16>::type;  // one AVX-512 register, or two of AVX2
using H = Vector<8>::type;
using Q = Vector<4>::type;

INLINE V load(const float* p) { return *reinterpret_cast<const Vector<16>::unaligned*>(p); }
INLINE H load8(const float* p) { return *reinterpret_cast<const Vector<8>::unaligned*>(p); }
INLINE void store(float* p, V v) { *reinterpret_cast<Vector<16>::unaligned*>(p) = v; }
INLINE Q low(H v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3); }
INLINE Q high(H v) { return __builtin_shufflevector(v, v, 4, 5, 6, 7); }

INLINE float sum(H v) {
  const Q q = low(v) + high(v);
  return (q[0] + q[2]) + (q[1] + q[3]);
}
INLINE float sum(V v) {
  return sum(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
             __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
}

// A row is read in vectors of 16; what the last one reads beyond the row is cut off. The table has
// 16 readable floats behind its end, model and gradient are padded with zeros to whole vectors.
struct Row {
  size_t full;
  Vector<16>::mask mask;
  bool tail;

  explicit Row(size_t columns) : full(columns / 16), tail(columns % 16 != 0) {
    for (size_t l = 0; l < 16; ++l) mask[l] = l < columns % 16 ? -1 : 0;
  }
  INLINE V last(const float* p) const {
    return reinterpret_cast<V>(reinterpret_cast<Vector<16>::mask>(load(p)) & mask);
  }
  // f(column, read) for every vector of a row, `read` being how to read one from a row.
  template <class F>
  INLINE void each(F&& f) const {
    for (size_t v = 0; v < full; ++v) f(16 * v, [](const float* p) { return load(p); });
    if (tail) f(16 * full, [this](const float* p) { return last(p); });
  }
};

struct Model {
  float* w;
  float b;
};

template <int K>
INLINE void gram_block(const Row& row, const float* x, const float* y, size_t d, Model& model,
                       float eta) {
  constexpr int kPairs = K * (K - 1) / 2;
  V dot[K] = {}, gram[kPairs > 0 ? kPairs : 1] = {};
  row.each([&](size_t j, auto read) {
    const V w = load(model.w + j);
    V a[K];
    for (int k = 0; k < K; ++k) a[k] = read(x + static_cast<size_t>(k) * d + j);
    for (int k = 0; k < K; ++k) dot[k] += a[k] * w;
    for (int k = 1, p = 0; k < K; ++k) {
      for (int i = 0; i < k; ++i, ++p) gram[p] += a[k] * a[i];
    }
  });
  float c[K];
  for (int k = 0, p = 0; k < K; ++k) {
    float residual = sum(dot[k]) + model.b - y[k];
    for (int i = 0; i < k; ++i, ++p) residual += c[i] * (sum(gram[p]) + 1.0f);
    c[k] = -eta * residual;
  }
  for (int k = 0; k < K; ++k) model.b += c[k];
  row.each([&](size_t j, auto read) {
    V w = load(model.w + j);
    for (int k = 0; k < K; ++k) {
      w += c[k] * read(x + static_cast<size_t>(k) * d + j);
    }
    store(model.w + j, w);
  });
}

template <int K>
void gram(const float* x, const float* y, size_t n, size_t d, Model& model, float eta) {
  const Row row(d);
  size_t i = 0;
  for (; i + K <= n; i += K) gram_block<K>(row, x + i * d, y + i, d, model, eta);
  for (; i < n; ++i) gram_block<1>(row, x + i * d, y + i, d, model, eta);
}

INLINE float dot_row(const Row& row, const float* x, const float* w) {
  constexpr size_t kUnroll = 8;
  V acc[kUnroll] = {};
  size_t v = 0;
  for (; v + kUnroll <= row.full; v += kUnroll) {
    for (size_t u = 0; u < kUnroll; ++u) acc[u] += load(x + 16 * (v + u)) * load(w + 16 * (v + u));
  }
  for (size_t u = 0; u + 1 < kUnroll; ++u) {
    if (v + u < row.full) acc[u] += load(x + 16 * (v + u)) * load(w + 16 * (v + u));
  }
  if (row.tail) acc[7] += row.last(x + 16 * row.full) * load(w + 16 * row.full);
  return sum(((acc[0] + acc[1]) + (acc[2] + acc[3])) + ((acc[4] + acc[5]) + (acc[6] + acc[7])));
}

void plain(const float* x, const float* y, size_t n, size_t d, Model& model, float eta) {
  const Row row(d);
  for (size_t i = 0; i < n; ++i, x += d) {
    const float c = -eta * (dot_row(row, x, model.w) + model.b - y[i]);
    row.each([&](size_t j, auto read) { store(model.w + j, load(model.w + j) + c * read(x + j)); });
    model.b += c;
  }
}

void fused(const float* x, const float* y, size_t n, size_t d, Model& model, float eta) {
  if (n == 0) return;
  const Row row(d);
  float margin = dot_row(row, x, model.w);
  for (size_t i = 0; i < n; ++i, x += d) {
    const float c = -eta * (margin + model.b - y[i]);
    const float* next = i + 1 < n ? x + d : x;
    V acc[4] = {};
    const auto step = [&](size_t j, V& into, V a, V b) {
      const V w = load(model.w + j) + c * a;
      store(model.w + j, w);
      into += w * b;
    };
    size_t v = 0;
    for (; v + 4 <= row.full; v += 4) {
      for (size_t u = 0; u < 4; ++u) {
        const size_t j = 16 * (v + u);
        step(j, acc[u], load(x + j), load(next + j));
      }
    }
    for (; v < row.full; ++v) step(16 * v, acc[0], load(x + 16 * v), load(next + 16 * v));
    const size_t j = 16 * row.full;
    if (row.tail) step(j, acc[1], row.last(x + j), row.last(next + j));
    margin = sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
    model.b += c;
  }
}

// out[k] holds column k of 8 rows.
INLINE void transpose8(const float* x, size_t d, H out[8]) {
  H a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = load8(x + static_cast<size_t>(i) * d);
  for (int i = 0; i < 8; i += 2) {
    b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int h = 0; h < 2; ++h) {
      a[i + 2 * h] = __builtin_shufflevector(b[i + h], b[i + h + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      a[i + 2 * h + 1] = __builtin_shufflevector(b[i + h], b[i + h + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int k = 0; k < 4; ++k) {
    out[k] = __builtin_shufflevector(a[k], a[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    out[k + 4] = __builtin_shufflevector(a[k], a[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// Columns of 8 rows; vectors beyond the last column are not used and cost nothing.
template <int D>
INLINE void columns8(const float* x, H out[16]) {
  transpose8(x, D, out);
  if (D > 8) transpose8(x + 8, D, out + 8);
}

template <int I>
INLINE Q splat(Q v) {
  return __builtin_shufflevector(v, v, I, I, I, I);
}

template <int D>
void narrow(const float* x, const float* y, size_t n, Model& model, float eta) {
  alignas(64) float w[16] = {};
  std::memcpy(w, model.w, D * sizeof(float));
  H w0 = load8(w), w1 = load8(w + 8);
  float b = model.b;
  size_t i = 0;
  for (; i + 8 <= n; i += 8, x += 8 * D) {
    H t[16], g[8];
    columns8<D>(x, t);
    for (int r = 0; r < 8; ++r) {
      H even = {}, odd = {};
      even += 1.0f;
      for (int k = 0; k < D; k += 2) even += x[r * D + k] * t[k];
      for (int k = 1; k < D; k += 2) odd += x[r * D + k] * t[k];
      g[r] = -eta * (even + odd);
    }
    H even = b - load8(y + i), odd = {};
    for (int k = 0; k < D; k += 2) even += (k < 8 ? w0[k % 8] : w1[k % 8]) * t[k];
    for (int k = 1; k < D; k += 2) odd += (k < 8 ? w0[k % 8] : w1[k % 8]) * t[k];
    const H u = -eta * (even + odd);
    Q first = low(u), second = high(u), steps = {};
    const auto take = [&](int r, Q c) {
      const H wide = __builtin_shufflevector(c, c, 0, 1, 2, 3, 0, 1, 2, 3);
      w0 += wide * load8(x + r * D);
      if (D > 8) w1 += wide * load8(x + r * D + 8);
      steps += c;
    };
    const auto upper = [&](int r, Q c) {
      first += c * low(g[r]);
      second += c * high(g[r]);
      take(r, c);
    };
    const auto lower = [&](int r, Q c) {
      second += c * high(g[r]);
      take(r, c);
    };
    upper(0, splat<0>(first));
    upper(1, splat<1>(first));
    upper(2, splat<2>(first));
    upper(3, splat<3>(first));
    lower(4, splat<0>(second));
    lower(5, splat<1>(second));
    lower(6, splat<2>(second));
    lower(7, splat<3>(second));
    b += steps[0];
  }
  for (int k = 0; k < D; ++k) model.w[k] = k < 8 ? w0[k % 8] : w1[k % 8];
  model.b = b;
  plain(x, y + i, n - i, D, model, eta);
}

// Mini-batches. K rows at a time, both passes while they are in the first-level cache.
template <int K>
INLINE void batch_block(const Row& row, const float* x, const float* y, size_t d,
                        const Model& model, float* gradient, float& residuals) {
  float c[K];
  if constexpr (K == 1) {
    c[0] = dot_row(row, x, model.w);
  } else {
    V dot[K] = {};
    row.each([&](size_t j, auto read) {
      const V w = load(model.w + j);
      for (int k = 0; k < K; ++k) dot[k] += read(x + static_cast<size_t>(k) * d + j) * w;
    });
    for (int k = 0; k < K; ++k) c[k] = sum(dot[k]);
  }
  for (int k = 0; k < K; ++k) {
    c[k] += model.b - y[k];
    residuals += c[k];
  }
  row.each([&](size_t j, auto read) {
    V g = load(gradient + j);
    for (int k = 0; k < K; ++k) {
      g += c[k] * read(x + static_cast<size_t>(k) * d + j);
    }
    store(gradient + j, g);
  });
}

template <int K>
void batches(const float* x, const float* y, size_t n, size_t d, size_t batch, float* gradient,
             Model& model, float eta) {
  const Row row(d);
  const size_t padded = (d + 15) / 16 * 16;
  for (size_t start = 0; start < n; start += batch) {
    const size_t end = start + batch < n ? start + batch : n;
    std::memset(gradient, 0, padded * sizeof(float));
    float residuals = 0;
    size_t i = start;
    for (; i + K <= end; i += K) {
      batch_block<K>(row, x + i * d, y + i, d, model, gradient, residuals);
    }
    for (; i < end; ++i) {
      batch_block<1>(row, x + i * d, y + i, d, model, gradient, residuals);
    }
    const float scale = eta / static_cast<float>(batch);
    for (size_t j = 0; j < padded; j += 16) {
      store(model.w + j, load(model.w + j) - scale * load(gradient + j));
    }
    model.b -= scale * residuals;
  }
}

template <int D>
void narrow_batches(const float* x, const float* y, size_t n, size_t batch, Model& model,
                    float eta) {
  for (size_t start = 0; start < n; start += batch) {
    const size_t end = start + batch < n ? start + batch : n;
    H g[D] = {}, total = {};
    float w[D], gradient[D];
    std::memcpy(w, model.w, sizeof w);
    size_t i = start;
    for (; i + 8 <= end; i += 8) {
      H t[16];
      columns8<D>(x + i * D, t);
      H even = model.b - load8(y + i), odd = {};
      for (int k = 0; k < D; k += 2) even += w[k] * t[k];
      for (int k = 1; k < D; k += 2) odd += w[k] * t[k];
      const H c = even + odd;
      total += c;
      for (int k = 0; k < D; ++k) g[k] += c * t[k];
    }
    for (int k = 0; k < D; ++k) gradient[k] = sum(g[k]);
    float residuals = sum(total);
    for (; i < end; ++i) {
      float c = model.b - y[i];
      for (int k = 0; k < D; ++k) c += w[k] * x[i * D + k];
      for (int k = 0; k < D; ++k) gradient[k] += c * x[i * D + k];
      residuals += c;
    }
    const float scale = eta / static_cast<float>(batch);
    for (int k = 0; k < D; ++k) model.w[k] -= scale * gradient[k];
    model.b -= scale * residuals;
  }
}

template <class F>
bool for_columns(size_t d, F&& f) {
  return [&]<int... I>(std::integer_sequence<int, I...>) {
    return ((d == I + 1 ? (f(std::integral_constant<int, I + 1>{}), true) : false) || ...);
  }(std::make_integer_sequence<int, 16>{});
}

}  // namespace

extern "C" {

const char* row_forms() { return "plain,fused,gram2,gram4,narrow"; }
const char* batch_forms() { return "plain,block2,block4,block8,narrow"; }

// One pass over the rows. Returns 0, or 1 where the form does not do so many columns.
int row_sgd(int form, const float* x, const float* y, size_t n, size_t d, float eta, float* w,
            float* b) {
  Model model{w, *b};
  int refused = 0;
  switch (form) {
    case 0: plain(x, y, n, d, model, eta); break;
    case 1: fused(x, y, n, d, model, eta); break;
    case 2: gram<2>(x, y, n, d, model, eta); break;
    case 3: gram<4>(x, y, n, d, model, eta); break;
    default: refused = !for_columns(d, [&](auto D) { narrow<D()>(x, y, n, model, eta); });
  }
  *b = model.b;
  return refused;
}

// `gradient` is scratch, as long as the padded model.
int batch_sgd(int form, const float* x, const float* y, size_t n, size_t d, size_t batch, float eta,
              float* gradient, float* w, float* b) {
  Model model{w, *b};
  int refused = 0;
  switch (form) {
    case 0: batches<1>(x, y, n, d, batch, gradient, model, eta); break;
    case 1: batches<2>(x, y, n, d, batch, gradient, model, eta); break;
    case 2: batches<4>(x, y, n, d, batch, gradient, model, eta); break;
    case 3: batches<8>(x, y, n, d, batch, gradient, model, eta); break;
    default:
      refused = !for_columns(d, [&](auto D) { narrow_batches<D()>(x, y, n, batch, model, eta); });
  }
  *b = model.b;
  return refused;
}
}
