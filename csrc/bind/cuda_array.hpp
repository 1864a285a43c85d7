// Arrays in a CUDA device's memory, as __cuda_array_interface__ describes them.
#pragma once

#include "bind/array.hpp"

namespace fastopt::bind {

// CUDA's own handles of the two default streams, which are also what the interface's numbers 1 and 2
// say.
inline void* const kLegacyStream = reinterpret_cast<void*>(uintptr_t(1));

// Reads an object that has the interface. Its device is asked for only where it matters.
Array read_cuda_array(py::handle object, const Where& where);

// The stream that an array's library queues its work on now, on this device.
void* current_stream(py::handle array, int device);

// Whether this object is known to still be what it was when it was read into `data`: its library never
// moves an array's memory, or says in short where it is.
bool stays(py::handle object, const void* data);

}  // namespace fastopt::bind
