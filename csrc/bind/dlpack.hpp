// DLPack: arrays that other libraries describe, by an object or, faster, by a table of C functions.
#pragma once

#include "bind/array.hpp"

namespace fastopt::bind {

// Reads an object that has __dlpack__. The array's owner is the capsule, which is never consumed: its
// own destructor gives the memory back.
Array read_dlpack(py::handle object, const ArgName& arg);

// The functions of a type whose arrays are described without a call into Python (DLPack 1.3), as
// torch's.
struct Exchange;
const Exchange* exchange_of(py::handle type);  // null if it has none

Array read_exchanged(const Exchange& with, py::handle object, const ArgName& arg);

// Whether it lies where it lay, in the type and layout it had.
bool has_layout(const Exchange& with, py::handle object, const void* data, DType dtype,
                const Layout& layout);

// The stream its library queues work on now.
void* exchanged_stream(const Exchange& with, int device);

}  // namespace fastopt::bind
