// Arrays in a CUDA device's memory, as __cuda_array_interface__ or CuPy's attributes describe them.
#pragma once

#include "bind/array.hpp"

namespace fastopt::bind {

// CUDA's own handle of the default stream, which is also what the interface's number 1 says.
inline void* const kLegacyStream = reinterpret_cast<void*>(uintptr_t(1));

// What an object says of itself through the interface; None if it does not have it, or in `trouble` why
// it cannot say.
py::object cuda_interface(py::handle object, std::string* trouble = nullptr);

// Reads an object that has said this. Its device is asked for only where it matters.
Array read_cuda_array(py::handle object, const py::dict& interface, const ArgName& arg);

// One of CuPy's own, by its attributes: the interface would make a dict and ask for the stream, which
// takes it a microsecond or two.
Array read_cupy_array(py::handle object, const ArgName& arg);

// `object` keeps the stream alive while it is held: CuPy ends a stream with its object. None where a
// library has no such object, or, as torch, never ends a stream.
struct Stream {
  void* handle = nullptr;
  py::object object = py::none();
};

// The one that an array's library queues its work on now, on this device.
Stream current_stream(py::handle array, int device);

}  // namespace fastopt::bind
