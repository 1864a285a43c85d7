// DLPack: arrays of other libraries, described by a capsule or, faster, by a table of C functions.
#pragma once

#include "bind/array.hpp"

namespace fastopt::bind {

// Reads an object that has __dlpack__. The array's owner is the capsule, which is not consumed, so that
// its destructor releases the memory.
Array read_dlpack(py::handle object, const ArgName& arg);

// The C functions of a type (DLPack 1.3), as torch has them, which describe its arrays without a call
// into Python.
struct Exchange;
const Exchange* exchange_of(py::handle type);  // null if it has none

Array read_exchanged(const Exchange& with, py::handle object, const ArgName& arg);

// Whether an array has this memory, dtype and layout.
bool has_layout(const Exchange& with, py::handle object, const void* data, DType dtype,
                const Layout& layout);

// The current stream of the library.
void* exchanged_stream(const Exchange& with, int device);

}  // namespace fastopt::bind
