// Reads a part of a file and takes its checksum piece by piece, while each is in the nearest caches.
//
// A chunk is read in a fraction of a millisecond, in which the caches lose what Python needs to go on:
// every step there costs several times what it does in a loop. So there is one call for all of it.
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <nanobind/stl/pair.h>

#include "arrays.hpp"
#include "crc32c.hpp"
#include "kernels.hpp"
#include "optimal_levels.hpp"

namespace zipml {
namespace {

constexpr size_t kPiece = size_t{1} << 18;

constexpr size_t kChecksumBytes = 4;
// What is read begins at a line of the caches: the kernel copies faster then, and so does the checksum.
constexpr size_t kLine = 64;

bool in_some_file(uint64_t start, size_t size) {
  constexpr uint64_t most = INT64_MAX;
  return size <= most && start <= most - size;
}

// What is read of a file: up to so many bytes, and behind them some for another place.
struct Target {
  uint8_t* data;
  size_t size;
  uint8_t* aside;
  size_t aside_size;
};

struct Reading {
  size_t done = 0;
  uint32_t crc = 0;  // of `data`
  bool failed = false;  // errno says why
};

Reading read_pieces(int file, uint64_t start, const Target& to, const char* level) {
  Reading at;
  const size_t whole = to.size + to.aside_size;
  while (at.done < whole) {
    const size_t before = at.done < to.size ? at.done : to.size, kept = at.done - before;
    const size_t rest = to.size - before;
    const bool last = rest <= kPiece;
    const iovec parts[] = {{to.data + before, last ? rest : kPiece}, {to.aside + kept, to.aside_size - kept}};
    const ssize_t got = preadv(file, parts, last ? 2 : 1, static_cast<off_t>(start + at.done));
    if (got < 0) {
      if (errno == EINTR) continue;
      at.failed = true;
      break;
    }
    if (got == 0) break;
    const size_t more = static_cast<size_t>(got);
    at.crc = crc32c(to.data + before, more < rest ? more : rest, at.crc, level);
    at.done += more;
  }
  return at;
}

// How many bytes there were, and the checksum of all but the last `aside` of the buffer.
std::pair<size_t, uint32_t> read_checked(int file, uint64_t start, MutVec<uint8_t> out, size_t aside) {
  const size_t size = out.shape(0);
  require(aside <= size, "more bytes are left aside than there are");
  require(in_some_file(start, size), "the range lies outside of any file");
  const char* level = kernels().name;
  uint8_t* data = out.data();
  nb::gil_scoped_release release;
  const Reading read = read_pieces(file, start, {data, size - aside, data + (size - aside), aside}, level);
  if (read.failed) throw std::system_error(errno, std::generic_category());
  return {read.done, read.crc};
}

nb::object checked_object(PyObject* object) {
  if (!object) throw nb::python_error();
  return nb::steal(object);
}

// The `size` bytes of a file from `start` on without their checksum, which are the last; None where it
// has fewer, or more if it is to be read `to_end`, where the checksum is another one, or where it cannot
// be read or held.
nb::object read_object(nb::handle path, uint64_t start, size_t size, bool to_end) {
  require(size >= kChecksumBytes, "there is no room for a checksum");
  if (size > static_cast<size_t>(INT64_MAX) - kLine || !in_some_file(start, size)) return nb::none();
  PyObject* encoded = nullptr;
  if (!PyUnicode_FSConverter(path.ptr(), &encoded)) throw nb::python_error();
  const nb::object name = nb::steal(encoded);  // bytes
  const char* place = PyBytes_AS_STRING(name.ptr());
  const size_t body = size - kChecksumBytes;
  PyObject* const bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(body + kLine - 1));
  if (!bytes) {  // no memory holds what was expected of the file: whoever looks says what there is
    PyErr_Clear();
    return nb::none();
  }
  const nb::object block = nb::steal(bytes);
  uint8_t* const begin = reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(block.ptr()));
  const size_t skipped = (kLine - reinterpret_cast<uintptr_t>(begin) % kLine) % kLine;
  uint8_t* data = begin + skipped;
  const char* level = kernels().name;
  bool good;
  {
    nb::gil_scoped_release release;
    int file;
    do {
      file = open(place, O_RDONLY | O_CLOEXEC);
    } while (file < 0 && errno == EINTR);
    struct stat found;
    good = file >= 0 &&
           (!to_end || (fstat(file, &found) == 0 && static_cast<uint64_t>(found.st_size) == start + size));
    if (good) {
      uint8_t stated[kChecksumBytes];
      const Reading read = read_pieces(file, start, {data, body, stated, kChecksumBytes}, level);
      good = !read.failed && read.done == size;
      for (size_t i = 0; good && i < kChecksumBytes; ++i) good = stated[i] == (read.crc >> (8 * i) & 255);
    }
    if (file >= 0) close(file);
  }
  if (!good) return nb::none();
  const nb::object all_of_it = checked_object(PyMemoryView_FromObject(block.ptr()));
  const nb::object from = checked_object(PyLong_FromSize_t(skipped)), to = checked_object(PyLong_FromSize_t(skipped + body));
  const nb::object part = checked_object(PySlice_New(from.ptr(), to.ptr(), nullptr));
  return checked_object(PyObject_GetItem(all_of_it.ptr(), part.ptr()));
}

// Whether bytes begin with those of `head`, but for the ones from `start` to `stop`.
bool begins_alike(nb::handle data, const nb::bytes& head, size_t start, size_t stop) {
  const size_t size = head.size();
  require(start <= stop && stop <= size, "the range lies outside of the head");
  Py_buffer view;  // an array of NumPy would be asked for much more than it is
  if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_SIMPLE) != 0) throw nb::python_error();
  const char* const bytes = static_cast<const char*>(view.buf);
  const char* const expected = static_cast<const char*>(head.data());
  const bool alike = static_cast<size_t>(view.len) >= size && std::memcmp(bytes, expected, start) == 0 &&
                     std::memcmp(bytes + stop, expected + stop, size - stop) == 0;
  PyBuffer_Release(&view);
  return alike;
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
  m.def("read_object", &read_object, nb::arg("path"), nb::arg("start"), nb::arg("size"), nb::arg("to_end"));
  m.def("begins_alike", &begins_alike, nb::arg("data"), nb::arg("head"), nb::arg("start"), nb::arg("stop"));
}

}  // namespace zipml
