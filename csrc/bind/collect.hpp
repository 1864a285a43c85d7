// Cycles through an object of ours. The garbage collector finds one if it is told what the object
// holds.
#pragma once

#include <pybind11/pybind11.h>

namespace fastopt::bind {

// Makes a class_ of T tell. T::each_object(f) calls f with all that T keeps alive; it may be called
// whenever Python code may run. Nothing is cleared: a cycle leads through a list or a dict, which the
// collector clears.
template <class T>
pybind11::custom_type_setup collectable() {
  return pybind11::custom_type_setup([](PyHeapTypeObject* heap) {
    heap->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
    heap->ht_type.tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
      Py_VISIT(Py_TYPE(self));
      if (!pybind11::detail::is_holder_constructed(self)) return 0;
      int stop = 0;
      pybind11::cast<const T&>(pybind11::handle(self)).each_object([&](pybind11::handle held) {
        if (held && !stop) stop = visit(held.ptr(), arg);
      });
      return stop;
    };
  });
}

}  // namespace fastopt::bind
