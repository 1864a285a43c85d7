#include "bind/array.hpp"

#include <algorithm>
#include <bit>

#include "bind/array_library.hpp"
#include "bind/call_device.hpp"
#include "bind/cuda_array.hpp"
#include "bind/dlpack.hpp"
#include "bind/identity_cache.hpp"

namespace fastopt::bind {
namespace {

// ml_dtypes.bfloat16 is recognized by name, because its type number differs between processes.
bool is_bfloat16(const py::dtype& t) {
  return t.itemsize() == 2 && std::string(py::str(t.attr("name"))) == "bfloat16";
}

// NumPy denotes the native byte order by '=' or explicitly.
bool is_native(char order) {
  return order == '=' || order == '|' ||
         order == (std::endian::native == std::endian::little ? '<' : '>');
}

DType classify(const py::dtype& t, const ArgName& arg) {
  const bool native = is_native(t.byteorder());
  if (native) {
    if (t.num() == py::detail::npy_api::NPY_FLOAT_) return DType::float32;
    if (t.num() == py::detail::npy_api::NPY_DOUBLE_) return DType::float64;
    if (t.num() == py::dtype("float16").num()) return DType::float16;
    if (is_bfloat16(t)) return DType::bfloat16;
  }
  throw py::type_error(arg.text() + " has dtype " + std::string(py::str(py::handle(t))) +
                       ", expected " + kFloatTypes + (native ? "" : " in native byte order"));
}

Array read_numpy(py::handle object, const ArgName& arg) {
  const auto* proxy = py::detail::array_proxy(object.ptr());
  Array a;
  a.data = proxy->data;
  a.dtype = dtype_of(proxy->descr, arg);
  a.writable = proxy->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  a.ndim = proxy->nd;
  a.shape = proxy->dimensions;
  a.strides = proxy->strides;
  a.owner = py::reinterpret_borrow<py::object>(object);
  return a;
}

// False under no_grad and inside an autograd Function.
bool grad_enabled() { return py::module_::import("torch").attr("is_grad_enabled")().cast<bool>(); }

// Rejects tensors that are more than the values in their memory.
void reject_autograd_tensor(py::handle tensor, const ArgName& arg, RequiresGrad policy) {
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
  const auto is_true = [](PyObject* answer) {
    if (!answer) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(answer).is(py::handle(Py_True));
  };
  if (is_true(PyObject_CallMethodNoArgs(tensor.ptr(), is_neg)))
    throw py::type_error(arg.text() + " has its negative bit set (a lazy negation); pass " +
                         arg.text() + ".resolve_neg()");
  if (policy == RequiresGrad::reject && is_true(PyObject_GetAttr(tensor.ptr(), requires_grad)) &&
      grad_enabled())
    throw py::type_error(arg.text() +
                         " requires grad, but fastopt does not record autograd operations; pass " +
                         arg.text() + ".detach()");
}

// The message of an error; an interrupt is thrown on.
std::string message_of(const py::error_already_set& e) {
  if (!e.matches(PyExc_Exception)) throw e;
  return py::str(e.value());
}

// torch has None for the gradient of a parameter that is frozen, or that the loss does not depend on;
// its named_parameters() are pairs of a name and a parameter.
const char* hint_for(py::handle object, const ArgName& arg) {
  if (object.is_none() && arg.role.starts_with("grad"))
    return "; leave its parameter out, or pass zeros";
  const bool is_named = PyTuple_Check(object.ptr()) && PyTuple_GET_SIZE(object.ptr()) == 2 &&
                        PyUnicode_Check(PyTuple_GET_ITEM(object.ptr(), 0));
  return is_named ? "; pass names and arrays as a dict" : "";
}

// Reads an object through the first interface it has. If one raises, the next is tried.
Array read_described(py::handle object, const ArgName& arg) {
  static PyObject* const array_interface = PyUnicode_InternFromString("__array_interface__");
  static PyObject* const dlpack = PyUnicode_InternFromString("__dlpack__");
  std::string trouble;
  if (const py::object interface = cuda_interface(object, &trouble); !interface.is_none()) {
    require_cuda(object, arg);
    return read_cuda_array(object, interface, arg);
  }
  const bool viewable =
      PyObject_CheckBuffer(object.ptr()) || !attribute(object, array_interface, &trouble).is_none();
  if (viewable) {
    py::object view;
    try {
      view = py::module_::import("numpy").attr("asarray")(object);
    } catch (const py::error_already_set& e) {
      trouble = message_of(e);
    }
    if (view && py::isinstance<py::array>(view)) {
      Array a = read_numpy(view, arg);
      // NumPy copies its scalars: a write to the copy would be lost.
      if (py::detail::array_proxy(view.ptr())->flags & py::detail::npy_api::NPY_ARRAY_OWNDATA_)
        a.writable = false;
      return a;
    }
  }
  if (!attribute(object, dlpack, &trouble).is_none()) return read_dlpack(object, arg);
  if (!trouble.empty()) throw py::type_error(arg.text() + " cannot be viewed as an array: " + trouble);
  throw py::type_error(arg.text() + " has type " + type_name(object) + ", expected an array of " +
                       kFloatTypes + hint_for(object, arg));
}

}  // namespace

py::object attribute(py::handle object, py::handle name, std::string* trouble) {
  if (PyObject* const found = PyObject_GetAttr(object.ptr(), name.ptr()))
    return py::reinterpret_steal<py::object>(found);
  if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
    PyErr_Clear();
    return py::none();
  }
  const std::string what = message_of(py::error_already_set());
  if (trouble) *trouble = what;
  return py::none();
}

std::string ArgName::text() const {
  if (index < 0) return role;
  if (names.is_none()) return role + "[" + std::to_string(index) + "]";
  return std::string(py::str(names(role, index)));
}

DType dtype_of(py::handle numpys, const ArgName& arg) {
  static IdentityCache<DType, 4> cache;
  return cache.get(numpys.ptr(),
                   [&] { return classify(py::reinterpret_borrow<py::dtype>(numpys), arg); });
}

int64_t Array::size() const {
  if (std::find(shape, shape + ndim, 0) != shape + ndim)
    return 0;  // whatever the product of the others, which may overflow
  int64_t n = 1;
  for (int d = 0; d < ndim; ++d) n *= shape[d];
  return n;
}

Array read_array(py::handle object, const ArgName& arg, RequiresGrad policy) {
  if (Py_TYPE(object.ptr()) == py::detail::npy_api::get().PyArray_Type_) return read_numpy(object, arg);
  const Library library = library_of(object);
  if (library.masked) throw py::type_error(arg.text() + " has a mask, expected a plain array");
  if (py::isinstance<py::array>(object)) return read_numpy(object, arg);
  if (library.torch) reject_autograd_tensor(object, arg, policy);
  if (library.is_cupy) {
    require_cuda(object, arg);
    return read_cupy_array(object, arg);
  }
  if (library.dlpack_exchange) return read_exchanged(*library.dlpack_exchange, object, arg);
  if (library.torch) return read_described(object.attr("detach")(), arg);
  return read_described(object, arg);
}

Array read_like(py::handle object, const ArgName& arg, const Array& x, const ArgName& x_arg) {
  Array a = read_array(object, arg);
  require_shape(a, arg, x, x_arg);
  require_dtype(a, arg, x, x_arg);
  return a;
}

std::string type_name(py::handle object) {
  return std::string(py::str(py::type::handle_of(object).attr("__name__")));
}

Shape shape_of(const Array& a) {
  py::tuple shape(a.ndim);
  for (int d = 0; d < a.ndim; ++d) shape[d] = a.shape[d];
  return shape;
}

std::string tuple_text(const py::ssize_t* numbers, int count) {
  py::tuple t(count);
  for (int i = 0; i < count; ++i) t[i] = numbers[i];
  return std::string(py::str(t));
}

void require_few_axes(py::ssize_t ndim, const ArgName& arg) {
  if (ndim > kMaxDims)
    throw py::value_error(arg.text() + " has " + std::to_string(ndim) + " axes, expected at most " +
                          std::to_string(kMaxDims));
}

void require_shape(const Array& a, const ArgName& arg, const Array& like, const ArgName& like_arg) {
  if (a.ndim == like.ndim && std::equal(a.shape, a.shape + a.ndim, like.shape)) return;
  throw py::value_error(arg.text() + " has shape " + tuple_text(a.shape, a.ndim) + ", but " +
                        like_arg.text() + " has " + tuple_text(like.shape, like.ndim));
}

void require_dtype(const Array& a, const ArgName& arg, const Array& like, const ArgName& like_arg) {
  if (a.dtype == like.dtype) return;
  throw py::type_error(arg.text() + " has dtype " + name_of(a.dtype) + ", but " + like_arg.text() +
                       " has " + name_of(like.dtype));
}

void require_aligned(const Array& a, const ArgName& arg) {
  const auto size = py::ssize_t(bytes_of(a.dtype));
  auto bits = reinterpret_cast<uintptr_t>(a.data);
  for (int d = 0; d < a.ndim; ++d) bits |= a.shape[d] > 1 ? uintptr_t(a.strides[d]) : 0;
  if (bits & uintptr_t(size - 1) && a.size() > 0)
    throw py::value_error(arg.text() + " is not aligned to its elements of " + std::to_string(size) +
                          " bytes, as arrays on a CUDA device must be");
}

void require_target(const Array& a, const ArgName& arg) {
  if (a.is_copy)
    throw py::value_error(arg.text() +
                          " is exported through DLPack as a copy, expected an array to write to");
  if (!a.writable) throw py::value_error(arg.text() + " is read-only, expected an array to write to");
  if (!Layout(a).dense(int64_t(bytes_of(a.dtype))) && a.size() > 0)
    throw py::value_error(arg.text() + " has shape " + tuple_text(a.shape, a.ndim) + " and strides " +
                          tuple_text(a.strides, a.ndim) +
                          ", expected a dense array: contiguous in any axis order, without gaps or "
                          "negative strides");
}

void Overlaps::write(const Array& a, const ArgName& arg) {
  const Range range = range_of(a);
  if (range.begin != range.end) writes_.push_back({range, arg});
}

void Overlaps::check_writes() {
  std::sort(writes_.begin(), writes_.end(),
            [](const Entry& a, const Entry& b) { return a.range.begin < b.range.begin; });
  for (size_t i = 1; i < writes_.size(); ++i)
    if (writes_[i].range.begin < writes_[i - 1].range.end)
      throw py::value_error(writes_[i - 1].arg.text() + " and " + writes_[i].arg.text() +
                            " overlap in memory");
}

void Overlaps::check_input(const Array& a, const ArgName& arg, const Array& result) const {
  if (!same_elements(a, result)) check_read(a, arg);
}

void Overlaps::check_read(const Array& a, const ArgName& arg) const {
  const Range range = range_of(a);
  const auto next = std::partition_point(writes_.begin(), writes_.end(),
                                         [&](const Entry& e) { return e.range.end <= range.begin; });
  if (next != writes_.end() && next->range.begin < range.end && range.begin != range.end)
    throw py::value_error(arg.text() + " and " + next->arg.text() + " overlap in memory");
}

}  // namespace fastopt::bind
