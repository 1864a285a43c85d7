#include "bind/array_library.hpp"

#include <string>

#include "bind/identity_cache.hpp"

namespace fastopt::bind {
namespace {

struct Name {
  std::string module, name;

  explicit Name(py::handle type)
      : module(py::str(type.attr("__module__"))), name(py::str(type.attr("__name__"))) {}
  bool is(const char* of, const char* called) const { return module == of && name == called; }
};

Library inspect_type(PyTypeObject* type) {
  const py::handle t(reinterpret_cast<PyObject*>(type));
  const Name own(t);
  if (own.is("cupy", "ndarray")) return {.is_cupy = true};
  if (own.is("torch", "Tensor") || own.is("torch.nn.parameter", "Parameter"))
    return {.torch = true, .dlpack_exchange = exchange_of(t)};
  for (const py::handle base : t.attr("__mro__")) {
    const Name name(base);
    if (name.is("torch", "Tensor")) return {.torch = true};
    if (name.name == "MaskedArray" && name.module.starts_with("numpy.ma")) return {.masked = true};
  }
  return {};
}

}  // namespace

Library library_of(py::handle array) {
  static IdentityCache<Library, 6> cache;
  PyTypeObject* const type = Py_TYPE(array.ptr());
  return cache.get(reinterpret_cast<PyObject*>(type), [&] { return inspect_type(type); });
}

}  // namespace fastopt::bind
