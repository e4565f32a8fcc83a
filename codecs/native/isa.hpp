// What a source needs that is compiled once for every instruction set (CMakeLists.txt): all of it
// lives in the namespace zipml::ZIPML_ISA.
//
// Such a source must not leave behind a function that another instruction set's object could
// share, for the linker keeps one copy and a processor might not run it: no containers or
// algorithms of the standard library, only what is inlined for sure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifndef ZIPML_ISA
#define ZIPML_ISA scalar
#endif

namespace zipml {
namespace ZIPML_ISA {

// Zeroed memory, aligned to a cache line.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size) { reset(size); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  __attribute__((always_inline)) ~Buffer() { std::free(data_); }

  void reset(size_t size) {
    std::free(data_);
    const size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes + 64));
    if (!data_) {
      size_ = 0;
      throw std::bad_alloc();
    }
    std::memset(static_cast<void*>(data_), 0, bytes + 64);
    size_ = size;
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  void clear() { std::memset(data_, 0, size_ * sizeof(T)); }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

// Branches on these at compile time: a value that has the answer as its type.
struct Yes {
  static constexpr bool value = true;
};
struct No {
  static constexpr bool value = false;
};

template <class T>
inline __attribute__((always_inline)) T least(T a, T b) { return b < a ? b : a; }
template <class T>
inline __attribute__((always_inline)) T greatest(T a, T b) { return a < b ? b : a; }

}  // namespace ZIPML_ISA
}  // namespace zipml
