// Lets the garbage collector find reference cycles through an object of the compiled module.
#pragma once

#include <pybind11/pybind11.h>

namespace fastopt::bind {

// Adds tp_traverse to a class_ of T. T::each_object(f) calls f with each object that T keeps alive; it
// may be called whenever Python code may run. There is no tp_clear: a cycle contains a list or a dict,
// which the collector clears.
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
