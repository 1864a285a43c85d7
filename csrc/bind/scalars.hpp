// Reads and checks single values from Python. Each function throws TypeError for a wrong type and
// ValueError for a wrong value, with the name of the argument and what was found.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

namespace fastopt::bind {

namespace py = pybind11;

struct Interval {
  double low, high;
  bool low_open = false, high_open = false;
};

double read_number(const char* name, py::handle value, const Interval& interval);
bool read_bool(const char* name, py::handle value);

// An integer in [0, 2**bits).
uint64_t read_uint(const char* name, py::handle value, int bits);

// Clears the Python error that is set, but throws an interrupt or an exit.
void clear_error();

// The value's repr, for messages.
std::string repr_of(py::handle value);

}  // namespace fastopt::bind
