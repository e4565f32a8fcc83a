// CRC-32C (Castagnoli), the checksum behind every stored chunk.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zipml {

// The checksum of `size` bytes, going on from that of the bytes before them (0: none).
// `level` names an instruction set as in ZIPML_SIMD; all give the same numbers.
uint32_t crc32c(const uint8_t* data, size_t size, uint32_t before, const char* level);

}  // namespace zipml
