// What the type of an array says of its library. A subclass may do much as it likes.
#pragma once

#include "bind/dlpack.hpp"

namespace fastopt::bind {

struct Library {
  bool is_cupy = false;  // an array's memory never moves, and its attributes describe it: CuPy's
  bool torch = false;    // an array may be more than one: torch's, subclasses too
  bool masked = false;   // it is one and a mask: NumPy's masked arrays, subclasses too
  const Exchange* dlpack_exchange = nullptr;  // an array is described by a C function
};

// Asked once a type.
Library library_of(py::handle array);

}  // namespace fastopt::bind
