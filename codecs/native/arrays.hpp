// Arrays as Python hands them over.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

#include "core.hpp"
#include "layout.hpp"

NAMESPACE_BEGIN(NB_NAMESPACE)
namespace detail {
template <>
struct dtype_traits<zipml::RawHalf> {
  static constexpr dlpack::dtype value{static_cast<uint8_t>(dlpack::dtype_code::Float), 16, 1};
  static constexpr auto name = const_name("float16");
};
}
NAMESPACE_END(NB_NAMESPACE)

namespace zipml {

namespace nb = nanobind;

template <class T>
using Vec = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using MutVec = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Mat = nb::ndarray<const T, nb::ndim<2>, nb::device::cpu>;
template <class T>
using MutMat = nb::ndarray<T, nb::ndim<2>, nb::device::cpu>;
template <class T>
using DenseMat = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using MutDenseMat = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

inline void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

// codes_size for sizes that nobody has checked: no product of it wraps.
inline size_t checked_codes_size(size_t rows, size_t columns, int stored_bits) {
  constexpr size_t kMost = size_t{1} << 58;
  require(rows < kMost && columns < kMost && (columns == 0 || rows / 64 + 1 < kMost / columns / 16),
          "no memory holds so many codes");
  return codes_size(rows, columns, stored_bits);
}

}  // namespace zipml
