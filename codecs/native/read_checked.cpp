// Reads a part of a file and takes its checksum piece by piece, while each is in the nearest caches.
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <unistd.h>

#include <nanobind/stl/pair.h>

#include "arrays.hpp"
#include "crc32c.hpp"
#include "kernels.hpp"
#include "optimal_levels.hpp"

namespace zipml {
namespace {

constexpr size_t kPiece = size_t{1} << 18;

// How many bytes there were, and the checksum of all but the last `aside` of the buffer.
std::pair<size_t, uint32_t> read_checked(int file, uint64_t start, MutVec<uint8_t> out, size_t aside) {
  const size_t size = out.shape(0);
  require(aside <= size, "more bytes are left aside than there are");
  require(start <= static_cast<uint64_t>(INT64_MAX) - size, "the range lies outside of any file");
  const char* level = kernels().name;
  uint8_t* data = out.data();
  nb::gil_scoped_release release;
  uint32_t crc = 0;
  size_t done = 0;
  while (done < size) {
    const size_t wanted = size - done < kPiece ? size - done : kPiece;
    const ssize_t got = pread(file, data + done, wanted, static_cast<off_t>(start + done));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw std::system_error(errno, std::generic_category());
    }
    if (got == 0) break;
    const size_t end = done + static_cast<size_t>(got), checked = size - aside;
    if (done < checked) crc = crc32c(data + done, (end < checked ? end : checked) - done, crc, level);
    done = end;
  }
  return {done, crc};
}

}  // namespace

void bind_read_checked(nb::module_& m) {
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::system_error& error) {
      errno = error.code().value();
      PyErr_SetFromErrno(PyExc_OSError);
    }
  });
  m.def("read_checked", &read_checked, nb::arg("file"), nb::arg("start"), nb::arg("out").noconvert(),
        nb::arg("aside"));
}

}  // namespace zipml
