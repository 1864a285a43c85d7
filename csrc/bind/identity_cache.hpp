// A small cache of what is known about a Python object, looked up by the object's address.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

namespace fastopt::bind {

// `shift` drops the low bits of an address that are the same for all objects of a kind.
template <class Value, int shift>
class IdentityCache {
 public:
  // The value for `object`, or else what compute() returns, which is then kept. Computing a value and
  // releasing the object whose entry is replaced may run Python code that uses this cache: an entry is
  // therefore complete before it is stored, the old object is released last, and a copy is returned.
  template <class F>
  Value get(PyObject* object, F&& compute) {
    Entry& entry = entries_[reinterpret_cast<uintptr_t>(object) >> shift & 7];
    if (entry.object == object) return entry.value;
    const Entry computed{object, compute()};
    Py_INCREF(object);  // so that no other object can be created at this address
    Py_XDECREF(std::exchange(entry, computed).object);
    return computed.value;
  }

 private:
  struct Entry {
    PyObject* object = nullptr;
    Value value{};
  };
  Entry entries_[8];
};

}  // namespace fastopt::bind
