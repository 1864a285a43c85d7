// DLPack, as far as reading host arrays needs it.
#pragma once

#include "bind/array.hpp"

namespace fastopt::bind {

// Reads an object that has __dlpack__. The array's owner is the capsule, which is never consumed: its
// own destructor gives the memory back.
Array read_dlpack(py::handle object, const Where& where);

}  // namespace fastopt::bind
