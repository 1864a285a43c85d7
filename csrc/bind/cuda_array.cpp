#include "bind/cuda_array.hpp"

#include <string>

#include "bind/library.hpp"

namespace fastopt::bind {
namespace {

// Made once: a list of arrays is asked for these a thousand times.
struct Keys {
  static PyObject* make(const char* text) { return PyUnicode_InternFromString(text); }
  PyObject *interface = make("__cuda_array_interface__"), *typestr = make("typestr"),
           *shape = make("shape"), *strides = make("strides"), *data = make("data"),
           *mask = make("mask"), *stream = make("stream");
};
const Keys& keys() {
  static const Keys made;
  return made;
}

// Null if it is not there, or None.
py::handle item(const py::dict& about, PyObject* key) {
  PyObject* const found = PyDict_GetItemWithError(about.ptr(), key);
  if (!found && PyErr_Occurred()) throw py::error_already_set();
  return found == Py_None ? nullptr : found;
}

py::object required(const py::dict& about, PyObject* key) {
  const py::handle found = item(about, key);
  if (!found) throw py::key_error(std::string(py::str(py::handle(key))));
  return py::reinterpret_borrow<py::object>(found);
}

// bfloat16 has no letter of its own: two bytes of whatever, and the library's name for it.
DType dtype_of(py::handle object, const py::dict& about, const Where& where) {
  const py::object type = required(about, keys().typestr);
  const auto is = [&](const char* text) {
    return PyUnicode_Check(type.ptr()) && PyUnicode_CompareWithASCIIString(type.ptr(), text) == 0;
  };
  if (is("<f4")) return DType::float32;
  if (is("<f8")) return DType::float64;
  if (is("<f2")) return DType::float16;
  const std::string name = py::str(py::getattr(object, "dtype", type));
  if (name.size() >= 8 && name.compare(name.size() - 8, 8, "bfloat16") == 0) return DType::bfloat16;
  throw py::type_error(where.text() + " has dtype " + name +
                       ", expected float16, bfloat16, float32 or float64");
}

void read_layout(Array& a, const py::dict& about) {
  const py::tuple shape = required(about, keys().shape);
  const bool strided = bool(item(about, keys().strides));
  const py::tuple strides = strided ? py::tuple(required(about, keys().strides)) : py::tuple();
  a.ndim = int(shape.size());
  a.numbers = std::make_unique<py::ssize_t[]>(2 * size_t(a.ndim));
  py::ssize_t dense = py::ssize_t(bytes_of(a.dtype));
  for (int d = a.ndim - 1; d >= 0; --d) {
    const auto length = shape[d].cast<py::ssize_t>();
    a.numbers[d] = length;
    a.numbers[a.ndim + d] = strided ? strides[d].cast<py::ssize_t>() : dense;
    dense *= length;
  }
  a.shape = a.numbers.get();
  a.strides = a.numbers.get() + a.ndim;
}

// A device reads no value across the boundary that its size asks for.
void require_aligned(const Array& a, const Where& where) {
  const auto size = py::ssize_t(bytes_of(a.dtype));
  bool all = reinterpret_cast<uintptr_t>(a.data) % uintptr_t(size) == 0;
  for (int d = 0; d < a.ndim; ++d) all = all && (a.shape[d] <= 1 || a.strides[d] % size == 0);
  if (!all)
    throw py::value_error(where.text() + " is not aligned to its elements of " + std::to_string(size) +
                          " bytes, as arrays on a CUDA device must be");
}

}  // namespace

py::object cuda_interface(py::handle object) {
  return py::getattr(object, py::handle(keys().interface), py::none());
}

Array read_cuda_array(py::handle object, const py::dict& about, const Where& where) {
  if (item(about, keys().mask))
    throw py::type_error(where.text() + " has a mask, expected a plain array");
  Array a;
  a.dtype = dtype_of(object, about, where);
  read_layout(a, about);
  const py::tuple data = required(about, keys().data);
  a.data = reinterpret_cast<char*>(data[0].cast<uintptr_t>());
  a.writable = !data[1].cast<bool>();
  a.device = kSomeDevice;
  if (const py::handle stream = item(about, keys().stream))
    a.stream = reinterpret_cast<void*>(stream.cast<uintptr_t>());
  a.owner = py::reinterpret_borrow<py::object>(object);
  require_aligned(a, where);
  return a;
}

void* current_stream(py::handle array, int device) {
  if (const Exchange* with = library_of(array).exchange) return exchanged_stream(*with, device);
  py::object stream = py::none();
  if (is_of(array, "torch"))
    stream =
        py::module_::import("torch").attr("cuda").attr("current_stream")(device).attr("cuda_stream");
  else if (const py::object about = cuda_interface(array); !about.is_none())
    stream = about.attr("get")("stream");
  if (stream.is_none() && is_of(array, "cupy")) stream = current_stream_object(array).attr("ptr");
  const auto handle = stream.is_none() ? 0 : stream.cast<uintptr_t>();
  return handle ? reinterpret_cast<void*>(handle) : kLegacyStream;
}

py::object current_stream_object(py::handle array) {
  if (!is_of(array, "cupy")) return py::none();
  return py::module_::import("cupy").attr("cuda").attr("get_current_stream")();
}

}  // namespace fastopt::bind
