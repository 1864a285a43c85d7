#include "bind/cuda_array.hpp"

#include <optional>
#include <string>

#include "bind/library.hpp"

namespace fastopt::bind {
namespace {

// Made once: a list of arrays is asked for these a thousand times.
struct Keys {
  static PyObject* make(const char* text) { return PyUnicode_InternFromString(text); }
  PyObject *interface = make("__cuda_array_interface__"), *typestr = make("typestr"),
           *shape = make("shape"), *strides = make("strides"), *data = make("data"),
           *mask = make("mask"), *stream = make("stream"), *dtype = make("dtype"), *ptr = make("ptr"),
           *device_id = make("device_id"), *c_contiguous = make("_c_contiguous"), *cuda = make("cuda"),
           *cupy = make("cupy"), *torch = make("torch"),
           *get_current_stream = make("get_current_stream"), *current_stream = make("current_stream"),
           *cuda_stream = make("cuda_stream");
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
  const std::string name = py::str(py::getattr(object, py::handle(keys().dtype), type));
  if (name.size() >= 8 && name.compare(name.size() - 8, 8, "bfloat16") == 0) return DType::bfloat16;
  throw py::type_error(where.text() + " has dtype " + name +
                       ", expected float16, bfloat16, float32 or float64");
}

py::ssize_t number(const py::tuple& numbers, int i) {
  PyObject* const item = PyTuple_GetItem(numbers.ptr(), i);
  const py::ssize_t n = item ? PyNumber_AsSsize_t(item, PyExc_OverflowError) : -1;
  if (n == -1 && PyErr_Occurred()) throw py::error_already_set();
  return n;
}

// Without strides, in row-major order.
void read_layout(Array& a, const py::tuple& shape, const std::optional<py::tuple>& strides,
                 const Where& where) {
  require_few_axes(py::ssize_t(shape.size()), where);
  a.ndim = int(shape.size());
  a.numbers = std::make_unique<py::ssize_t[]>(2 * size_t(a.ndim));
  py::ssize_t dense = py::ssize_t(bytes_of(a.dtype));
  for (int d = a.ndim - 1; d >= 0; --d) {
    a.numbers[d] = number(shape, d);
    a.numbers[a.ndim + d] = strides ? number(*strides, d) : dense;
    dense = py::ssize_t(uint64_t(dense) * uint64_t(a.numbers[d]));  // may overflow where all is empty
  }
  a.shape = a.numbers.get();
  a.strides = a.numbers.get() + a.ndim;
}

}  // namespace

py::object cuda_interface(py::handle object, std::string* trouble) {
  return attribute(object, keys().interface, trouble);
}

Array read_cuda_array(py::handle object, const py::dict& about, const Where& where) {
  if (item(about, keys().mask))
    throw py::type_error(where.text() + " has a mask, expected a plain array");
  Array a;
  a.dtype = dtype_of(object, about, where);
  std::optional<py::tuple> strides;
  if (item(about, keys().strides)) strides = required(about, keys().strides);
  read_layout(a, required(about, keys().shape), strides, where);
  const py::tuple data = required(about, keys().data);
  a.data = reinterpret_cast<char*>(data[0].cast<uintptr_t>());
  a.writable = !data[1].cast<bool>();
  a.device = kUnknownDevice;
  if (const py::handle stream = item(about, keys().stream))
    a.stream = reinterpret_cast<void*>(stream.cast<uintptr_t>());
  a.owner = py::reinterpret_borrow<py::object>(object);
  require_aligned(a, where);
  return a;
}

Array read_cupy_array(py::handle object, const Where& where) {
  const auto asked = [](py::handle of, PyObject* name) { return py::getattr(of, py::handle(name)); };
  Array a;
  a.dtype = dtype_of(asked(object, keys().dtype), where);
  // Strides take longer than this attribute of CuPy's, which is not public.
  std::optional<py::tuple> strides;
  if (!py::getattr(object, py::handle(keys().c_contiguous), py::none()).is(py::handle(Py_True)))
    strides = asked(object, keys().strides);
  read_layout(a, asked(object, keys().shape), strides, where);
  const py::object memory = asked(object, keys().data);
  if (a.size() > 0) a.data = reinterpret_cast<char*>(asked(memory, keys().ptr).cast<uintptr_t>());
  a.writable = true;
  a.device = asked(memory, keys().device_id).cast<int>();
  a.owner = py::reinterpret_borrow<py::object>(object);
  require_aligned(a, where);
  return a;
}

namespace {

// A device's, by a function of a library that whoever made an array has imported: an import would take
// longer than all the rest.
py::object library_stream(PyObject* library, PyObject* function, int device) {
  auto module = py::reinterpret_steal<py::object>(PyImport_GetModule(library));
  if (!module) module = py::reinterpret_steal<py::object>(PyImport_Import(library));
  if (!module) throw py::error_already_set();
  return module.attr(py::handle(keys().cuda)).attr(py::handle(function))(device);
}

void* handle_of(const py::object& stream) {
  const auto number = stream.is_none() ? 0 : stream.cast<uintptr_t>();
  return number ? reinterpret_cast<void*>(number) : kLegacyStream;
}

}  // namespace

Stream current_stream(py::handle array, int device) {
  const Library library = library_of(array);
  if (library.exchange) return {exchanged_stream(*library.exchange, device)};
  if (library.keeps) {
    const py::object current = library_stream(keys().cupy, keys().get_current_stream, device);
    return {handle_of(current.attr(py::handle(keys().ptr))), current};
  }
  if (library.torch) {
    const py::object current = library_stream(keys().torch, keys().current_stream, device);
    return {handle_of(current.attr(py::handle(keys().cuda_stream)))};
  }
  const py::object about = cuda_interface(array);
  return {handle_of(about.is_none() ? about : about.attr("get")(py::handle(keys().stream)))};
}

}  // namespace fastopt::bind
