// Arrays in a CUDA device's memory, as __cuda_array_interface__ or CuPy's attributes describe them.
#pragma once

#include "bind/array.hpp"

namespace fastopt::bind {

// CUDA's handle of the legacy default stream; the array interface calls it 1, too.
inline void* const kLegacyStream = reinterpret_cast<void*>(uintptr_t(1));

// An object's __cuda_array_interface__, or None if it has none or raises; then `trouble` is the
// message.
py::object cuda_interface(py::handle object, std::string* trouble = nullptr);

// Reads an object with this interface. Its device is queried later, if needed.
Array read_cuda_array(py::handle object, const py::dict& interface, const ArgName& arg);

// Reads an array of CuPy's by its attributes: the interface would create a dict and query the stream,
// which takes a microsecond or two.
Array read_cupy_array(py::handle object, const ArgName& arg);

// `object` keeps the stream alive, because CuPy destroys a stream with its object. None if a library
// has no such object or, like torch, never destroys a stream.
struct Stream {
  void* handle = nullptr;
  py::object object = py::none();
};

// The current stream of an array's library on this device.
Stream current_stream(py::handle array, int device);

}  // namespace fastopt::bind
