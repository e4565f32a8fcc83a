// CRC-32C three ways: by tables; by the processor's instruction on three runs of bytes at once; and
// by products without carries, 256 bytes a step.
//
// All of it works on polynomials over GF(2) in the bit order of the checksum: the first bit of a byte
// is its lowest, and stands for the highest power of x.
#include "crc32c.hpp"

#include <cstring>

#if defined(ZIPML_X86)
#include <immintrin.h>
#endif

namespace zipml {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;

struct Tables {
  uint32_t of[8][256];
};

constexpr Tables make_tables() {
  Tables t{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? kPolynomial : 0);
    t.of[0][byte] = crc;
  }
  for (int step = 1; step < 8; ++step) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t shorter = t.of[step - 1][byte];
      t.of[step][byte] = shorter >> 8 ^ t.of[0][shorter & 255];
    }
  }
  return t;
}

constexpr Tables kTables = make_tables();

uint32_t by_tables(const uint8_t* data, size_t size, uint32_t crc) {
  for (; size >= 8; data += 8, size -= 8) {
    const auto word = [data](int at) {
      return uint32_t{data[at]} | uint32_t{data[at + 1]} << 8 | uint32_t{data[at + 2]} << 16 |
             uint32_t{data[at + 3]} << 24;
    };
    const uint32_t low = word(0) ^ crc, high = word(4);
    crc = 0;
    for (int i = 0; i < 4; ++i) {
      crc ^= kTables.of[7 - i][low >> 8 * i & 255] ^ kTables.of[3 - i][high >> 8 * i & 255];
    }
  }
  for (; size; ++data, --size) crc = crc >> 8 ^ kTables.of[0][(crc ^ *data) & 255];
  return crc;
}

#if defined(ZIPML_X86)

// x^n modulo the polynomial, one bit further up: what a product without carries of numbers in this
// bit order lacks.
constexpr uint64_t power(int n) {
  uint32_t value = 0x80000000;
  for (int i = 0; i < n; ++i) value = value >> 1 ^ (value & 1 ? kPolynomial : 0);
  return uint64_t{value} << 1;
}

uint64_t word(const uint8_t* data) {
  uint64_t out;
  std::memcpy(&out, data, sizeof out);
  return out;
}

__attribute__((target("sse4.2"))) uint32_t one_by_one(const uint8_t* data, size_t size, uint32_t crc) {
  uint64_t at = crc;
  for (; size >= 8; data += 8, size -= 8) at = _mm_crc32_u64(at, word(data));
  crc = static_cast<uint32_t>(at);
  for (; size; ++data, --size) crc = _mm_crc32_u8(crc, *data);
  return crc;
}

// Bytes of each of the three runs: the instruction takes three cycles, and one can start in each.
constexpr size_t kRun = 1360;

// What a checksum becomes behind so many further bytes of zeros.
template <size_t bytes>
__attribute__((target("sse4.2,pclmul"))) uint64_t moved(uint64_t crc) {
  constexpr uint64_t factor = power(8 * static_cast<int>(bytes) - 33) >> 1;
  const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<long long>(crc)),
                                               _mm_cvtsi64_si128(static_cast<long long>(factor)), 0);
  return _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(product)));
}

__attribute__((target("sse4.2,pclmul"))) uint32_t by_instruction(const uint8_t* data, size_t size, uint32_t crc) {
  uint64_t first = crc;
  for (; size >= 3 * kRun; data += 3 * kRun, size -= 3 * kRun) {
    uint64_t second = 0, third = 0;
    for (size_t i = 0; i < kRun; i += 8) {
      first = _mm_crc32_u64(first, word(data + i));
      second = _mm_crc32_u64(second, word(data + kRun + i));
      third = _mm_crc32_u64(third, word(data + 2 * kRun + i));
    }
    first = moved<2 * kRun>(first) ^ moved<kRun>(second) ^ third;
  }
  return one_by_one(data, size, static_cast<uint32_t>(first));
}

#define ZIPML_PRODUCTS __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

// Lanes of 128 bits, each moved by `bits` towards the end of the message, and what stands there.
template <int bits>
ZIPML_PRODUCTS inline __m512i folded(__m512i x, __m512i there) {
  const __m512i factors = _mm512_set4_epi64(power(bits - 32), power(bits + 32), power(bits - 32), power(bits + 32));
  const __m512i low = _mm512_clmulepi64_epi128(x, factors, 0x00);
  const __m512i high = _mm512_clmulepi64_epi128(x, factors, 0x11);
  return _mm512_ternarylogic_epi64(low, high, there, 0x96);  // all three xored
}

template <int lane>
ZIPML_PRODUCTS inline __m128i next_lane(__m128i x, __m512i lanes) {
  const __m128i factors = _mm_set_epi64x(power(128 - 32), power(128 + 32));
  const __m128i moved = _mm_xor_si128(_mm_clmulepi64_si128(x, factors, 0x00), _mm_clmulepi64_si128(x, factors, 0x11));
  return _mm_xor_si128(moved, _mm512_extracti32x4_epi32(lanes, lane));
}

ZIPML_PRODUCTS uint32_t by_products(const uint8_t* data, size_t size, uint32_t crc) {
  constexpr size_t step = 256;
  if (size < 2 * step) return by_instruction(data, size, crc);
  __m512i a = _mm512_loadu_si512(data), b = _mm512_loadu_si512(data + 64);
  __m512i c = _mm512_loadu_si512(data + 128), d = _mm512_loadu_si512(data + 192);
  a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(crc))));
  for (data += step, size -= step; size >= step; data += step, size -= step) {
    a = folded<8 * step>(a, _mm512_loadu_si512(data));
    b = folded<8 * step>(b, _mm512_loadu_si512(data + 64));
    c = folded<8 * step>(c, _mm512_loadu_si512(data + 128));
    d = folded<8 * step>(d, _mm512_loadu_si512(data + 192));
  }
  a = folded<512>(folded<512>(folded<512>(a, b), c), d);
  __m128i x = _mm512_castsi512_si128(a);
  x = next_lane<3>(next_lane<2>(next_lane<1>(x, a), a), a);
  uint64_t out = _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(x)));
  out = _mm_crc32_u64(out, static_cast<uint64_t>(_mm_extract_epi64(x, 1)));
  return by_instruction(data, size, static_cast<uint32_t>(out));
}

#endif

}  // namespace

uint32_t crc32c(const uint8_t* data, size_t size, uint32_t before, const char* level) {
  const uint32_t crc = ~before;
#if defined(ZIPML_X86)
  if (std::strcmp(level, "scalar") != 0 && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
    const bool wide = std::strcmp(level, "avx512") == 0 && __builtin_cpu_supports("vpclmulqdq");
    return ~(wide ? by_products(data, size, crc) : by_instruction(data, size, crc));
  }
#else
  static_cast<void>(level);
#endif
  return ~by_tables(data, size, crc);
}

}  // namespace zipml
