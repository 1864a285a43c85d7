#include "bind/scalars.hpp"

#include <cmath>
#include <limits>

namespace fastopt::bind {

std::string repr_of(py::handle value) { return std::string(py::repr(value)); }

void clear_error() {
  if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception)) throw py::error_already_set();
  PyErr_Clear();
}

// A bool of Python's or NumPy's.
static bool is_bool(py::handle value) {
  if (PyBool_Check(value.ptr())) return true;
  if (PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr())) return false;
  const py::object dtype = py::getattr(value, "dtype", py::none());
  return py::str(py::getattr(dtype, "kind", py::none())).equal(py::str("b"));
}

double read_number(const char* name, py::handle value, const Interval& interval) {
  const bool odd = is_bool(value);  // momentum=True would be taken as 1, which is hardly intended
  double x = odd ? 0.0 : PyFloat_AsDouble(value.ptr());
  const bool huge = PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_OverflowError);
  if (odd || (PyErr_Occurred() && !huge)) {
    clear_error();
    throw py::type_error(std::string(name) + " must be a number, got " + repr_of(value));
  }
  if (huge) {  // an integer out of range of a double
    clear_error();
    x = std::numeric_limits<double>::quiet_NaN();
  }
  const auto& [low, high, low_open, high_open] = interval;
  const bool inside = (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high);
  if (inside) return x;
  const auto bound = [](double b) {
    return std::isinf(b) ? std::string("inf") : std::to_string(int(b));
  };
  throw py::value_error(std::string(name) + " must lie in " + (low_open ? "(" : "[") + bound(low) +
                        ", " + bound(high) + (high_open ? ")" : "]") + ", got " + repr_of(value));
}

bool read_bool(const char* name, py::handle value) {
  if (!PyBool_Check(value.ptr()))
    throw py::type_error(std::string(name) + " must be True or False, got " + repr_of(value) +
                         (is_bool(value) ? "; pass a Python bool" : ""));
  return value.ptr() == Py_True;
}

uint64_t read_uint(const char* name, py::handle value, int bits) {
  // True is an integer to Python, but is hardly intended as one.
  const auto whole = py::reinterpret_steal<py::object>(
      PyBool_Check(value.ptr()) ? nullptr : PyNumber_Index(value.ptr()));
  if (!whole) {
    clear_error();
    throw py::type_error(std::string(name) + " must be an integer, got " + repr_of(value));
  }
  const uint64_t n = PyLong_AsUnsignedLongLong(whole.ptr());
  const bool outside = PyErr_Occurred();
  clear_error();
  if (outside || (bits < 64 && n >> bits))
    throw py::value_error(std::string(name) + " must lie in [0, 2**" + std::to_string(bits) +
                          "), got " + repr_of(value));
  return n;
}

}  // namespace fastopt::bind
