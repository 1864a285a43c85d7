#include "bind/cuda_array.hpp"

#include <optional>
#include <string>

#include "bind/array_library.hpp"

namespace fastopt::bind {
namespace {

// Interned once, because they are looked up for every array of a list.
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

// Null if the key is missing or its value is None.
py::handle item(const py::dict& interface, PyObject* key) {
  PyObject* const found = PyDict_GetItemWithError(interface.ptr(), key);
  if (!found && PyErr_Occurred()) throw py::error_already_set();
  return found == Py_None ? nullptr : found;
}

py::object required(const py::dict& interface, PyObject* key) {
  const py::handle found = item(interface, key);
  if (!found) throw py::key_error(std::string(py::str(py::handle(key))));
  return py::reinterpret_borrow<py::object>(found);
}

// bfloat16 has no type string of its own: it is recognized by the library's name for it.
DType dtype_of(py::handle object, const py::dict& interface, const ArgName& arg) {
  const py::object type = required(interface, keys().typestr);
  const auto is = [&](const char* text) {
    return PyUnicode_Check(type.ptr()) && PyUnicode_CompareWithASCIIString(type.ptr(), text) == 0;
  };
  if (is("<f4")) return DType::float32;
  if (is("<f8")) return DType::float64;
  if (is("<f2")) return DType::float16;
  const std::string name = py::str(py::getattr(object, py::handle(keys().dtype), type));
  if (name.size() >= 8 && name.compare(name.size() - 8, 8, "bfloat16") == 0) return DType::bfloat16;
  throw py::type_error(arg.text() + " has dtype " + name + ", expected " + kFloatTypes);
}

py::ssize_t number(const py::tuple& numbers, int i) {
  PyObject* const item = PyTuple_GetItem(numbers.ptr(), i);
  const py::ssize_t n = item ? PyNumber_AsSsize_t(item, PyExc_OverflowError) : -1;
  if (n == -1 && PyErr_Occurred()) throw py::error_already_set();
  return n;
}

// Without strides, the array is in C order.
void read_layout(Array& a, const py::tuple& shape, const std::optional<py::tuple>& strides,
                 const ArgName& arg) {
  require_few_axes(py::ssize_t(shape.size()), arg);
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

Array read_cuda_array(py::handle object, const py::dict& interface, const ArgName& arg) {
  if (item(interface, keys().mask))
    throw py::type_error(arg.text() + " has a mask, expected a plain array");
  Array a;
  a.dtype = dtype_of(object, interface, arg);
  std::optional<py::tuple> strides;
  if (item(interface, keys().strides)) strides = required(interface, keys().strides);
  read_layout(a, required(interface, keys().shape), strides, arg);
  const py::tuple data = required(interface, keys().data);
  a.data = reinterpret_cast<char*>(data[0].cast<uintptr_t>());
  a.writable = !data[1].cast<bool>();
  a.device = kUnknownDevice;
  if (const py::handle stream = item(interface, keys().stream))
    a.stream = reinterpret_cast<void*>(stream.cast<uintptr_t>());
  a.owner = py::reinterpret_borrow<py::object>(object);
  require_aligned(a, arg);
  return a;
}

Array read_cupy_array(py::handle object, const ArgName& arg) {
  const auto get = [](py::handle of, PyObject* name) { return py::getattr(of, py::handle(name)); };
  Array a;
  a.dtype = dtype_of(get(object, keys().dtype), arg);
  // Reading strides takes longer than this attribute of CuPy's, which is not public.
  std::optional<py::tuple> strides;
  if (!py::getattr(object, py::handle(keys().c_contiguous), py::none()).is(py::handle(Py_True)))
    strides = get(object, keys().strides);
  read_layout(a, get(object, keys().shape), strides, arg);
  const py::object memory = get(object, keys().data);
  if (a.size() > 0) a.data = reinterpret_cast<char*>(get(memory, keys().ptr).cast<uintptr_t>());
  a.writable = true;
  a.device = get(memory, keys().device_id).cast<int>();
  a.owner = py::reinterpret_borrow<py::object>(object);
  require_aligned(a, arg);
  return a;
}

namespace {

// The current stream of a device. The library has been imported already, by whoever created the array;
// an import statement would take longer than everything else here.
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
  if (library.dlpack_exchange) return {exchanged_stream(*library.dlpack_exchange, device)};
  if (library.is_cupy) {
    const py::object current = library_stream(keys().cupy, keys().get_current_stream, device);
    return {handle_of(current.attr(py::handle(keys().ptr))), current};
  }
  if (library.torch) {
    const py::object current = library_stream(keys().torch, keys().current_stream, device);
    return {handle_of(current.attr(py::handle(keys().cuda_stream)))};
  }
  const py::object interface = cuda_interface(array);
  return {
      handle_of(interface.is_none() ? interface : interface.attr("get")(py::handle(keys().stream)))};
}

}  // namespace fastopt::bind
