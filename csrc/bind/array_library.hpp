// What is known of an array by its type. A subclass may behave differently, so only exact types count,
// unless stated otherwise.
#pragma once

#include "bind/dlpack.hpp"

namespace fastopt::bind {

struct Library {
  bool is_cupy = false;  // CuPy's: its memory never moves, and its attributes describe it
  bool torch = false;    // a tensor of torch's, subclasses included
  bool masked = false;   // a masked array of NumPy's, subclasses included
  const Exchange* dlpack_exchange = nullptr;  // null unless C functions describe the array
};

// Inspects a type once.
Library library_of(py::handle array);

}  // namespace fastopt::bind
