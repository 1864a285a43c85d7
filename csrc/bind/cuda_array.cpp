#include "bind/cuda_array.hpp"

#include <cstring>
#include <string>

namespace fastopt::bind {
namespace {

std::string module_of(py::handle object) {
  return std::string(py::str(py::type::handle_of(object).attr("__module__")));
}

// bfloat16 has no letter of its own: two bytes of whatever, and the library's name for it.
DType dtype_of(py::handle object, const py::dict& about, const Where& where) {
  const std::string type = py::str(about["typestr"]);
  if (type == "<f4") return DType::float32;
  if (type == "<f8") return DType::float64;
  if (type == "<f2") return DType::float16;
  const std::string name = py::str(py::getattr(object, "dtype", py::str(type)));
  if (name.size() >= 8 && name.compare(name.size() - 8, 8, "bfloat16") == 0) return DType::bfloat16;
  throw py::type_error(where.text() + " has dtype " + name +
                       ", expected float16, bfloat16, float32 or float64");
}

void read_layout(Array& a, const py::dict& about) {
  const py::tuple shape = about["shape"];
  const py::object strides =
      about.contains("strides") ? py::object(about["strides"]) : py::object(py::none());
  a.ndim = int(shape.size());
  a.numbers = std::make_unique<py::ssize_t[]>(2 * size_t(a.ndim));
  py::ssize_t dense = py::ssize_t(bytes_of(a.dtype));
  for (int d = a.ndim - 1; d >= 0; --d) {
    const py::ssize_t length = shape[d].cast<py::ssize_t>();
    a.numbers[d] = length;
    a.numbers[a.ndim + d] = strides.is_none() ? dense : py::tuple(strides)[d].cast<py::ssize_t>();
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

bool is_of(py::handle array, const char* library) {
  const std::string module = module_of(array);
  const size_t n = strlen(library);
  return module.compare(0, n, library) == 0 && (module.size() == n || module[n] == '.');
}

py::object cuda_interface(py::handle object) {
  return py::getattr(object, "__cuda_array_interface__", py::none());
}

Array read_cuda_array(py::handle object, const py::dict& about, const Where& where) {
  if (about.contains("mask") && !py::object(about["mask"]).is_none())
    throw py::type_error(where.text() + " has a mask, expected a plain array");
  Array a;
  a.dtype = dtype_of(object, about, where);
  read_layout(a, about);
  const py::tuple data = about["data"];
  a.data = reinterpret_cast<char*>(data[0].cast<uintptr_t>());
  a.writable = !data[1].cast<bool>();
  a.device = kSomeDevice;
  if (about.contains("stream") && !py::object(about["stream"]).is_none())
    a.stream = reinterpret_cast<void*>(about["stream"].cast<uintptr_t>());
  a.owner = py::reinterpret_borrow<py::object>(object);
  require_aligned(a, where);
  return a;
}

void* current_stream(py::handle array, int device) {
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

namespace {

enum class Habit : uint8_t { moves, tells, stays };

// Of the exact type: a subclass may do as it likes.
Habit asked_habit(PyTypeObject* type) {
  const py::handle t(reinterpret_cast<PyObject*>(type));
  const std::string module = py::str(t.attr("__module__")), name = py::str(t.attr("__name__"));
  if (module == "cupy" && name == "ndarray") return Habit::stays;
  if (module == "torch" && (name == "Tensor" || name == "Parameter")) return Habit::tells;
  return Habit::moves;
}

// The last answer is kept, by identity.
Habit habit_of(PyTypeObject* type) {
  static PyTypeObject* asked = nullptr;
  static Habit answer = Habit::moves;
  if (type != asked) {
    answer = asked_habit(type);
    Py_XDECREF(asked);
    Py_INCREF(type);  // so that no other type can come to lie at its address
    asked = type;
  }
  return answer;
}

}  // namespace

bool never_moves(py::handle object) { return habit_of(Py_TYPE(object.ptr())) == Habit::stays; }

bool stays(py::handle object, const void* data) {
  switch (habit_of(Py_TYPE(object.ptr()))) {
    case Habit::stays:
      return true;
    case Habit::tells:
      return object.attr("data_ptr")().cast<uintptr_t>() == reinterpret_cast<uintptr_t>(data);
    case Habit::moves:
      break;
  }
  return false;
}

}  // namespace fastopt::bind
