#include "bind/dlpack.hpp"

#include <iterator>

#include "bind/call_device.hpp"
#include "bind/cuda_array.hpp"
#include "bind/scalars.hpp"

namespace fastopt::bind {

// The C structs of DLPack 1.0, as specified at dmlc.github.io/dlpack.
struct Tensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;  // in elements; strides may be null: C order
  uint64_t byte_offset;
};
struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};
struct Versioned {
  uint32_t major, minor;
  void* context;
  void (*deleter)(Versioned*);
  uint64_t flags;
  Tensor tensor;
};

// The beginning of the table in every version with this major number; later ones may append to it.
struct Exchange {
  uint32_t major, minor;
  const Exchange* previous;
  const void *allocate, *to_managed, *from_managed;
  int (*describe)(void* object, Tensor* out);  // valid while the object is alive; may be null
  int (*current_stream)(int32_t device_type, int32_t device, void** out);
};

namespace {

constexpr uint64_t kReadOnly = 1, kIsCopied = 2;                      // Versioned::flags
constexpr int kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13;  // device types
constexpr int kFloat = 2, kBfloat = 4, kBool = 6;                     // type codes

// Managed memory is read and written on its device, as device memory is.
bool is_cuda(int device_type) { return device_type == kCuda || device_type == kCudaManaged; }

// Producers may not accept copy=False, or may only be able to export a copy, which is sufficient for an
// array that is only read; those older than DLPack 1.0 do not accept max_version either. On CUDA, the
// legacy default stream is passed although it is the standard's default, because torch does not
// synchronize without it.
py::object capsule_of(py::handle object, bool cuda) {
  const py::object produce = object.attr("__dlpack__");
  const py::tuple version = py::make_tuple(1, 0);
  py::dict stream;
  if (cuda) stream["stream"] = 1;
  try {
    return produce(py::arg("copy") = false, py::arg("max_version") = version, **stream);
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_Exception)) throw;
  }
  try {
    return produce(py::arg("max_version") = version, **stream);
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_TypeError)) throw;
  }
  return produce(**stream);
}

bool on_cuda(py::handle object) {
  if (!py::hasattr(object, "__dlpack_device__")) return false;
  return is_cuda(py::tuple(object.attr("__dlpack_device__")())[0].cast<int>());
}

// The layout of a torch tensor says more than the error that torch raises.
void require_dense(py::handle object, const ArgName& arg) {
  const std::string layout = py::str(attribute(object, py::str("layout")));
  if (layout.starts_with("torch.sparse"))
    throw py::type_error(arg.text() + " is sparse (" + layout + "), expected a dense array; pass " +
                         arg.text() + ".to_dense()");
}

// Reports a producer's error by the first line of its message; torch adds a stack trace in further
// lines.
[[noreturn]] void refuse(const py::error_already_set& e, py::handle object, const ArgName& arg) {
  if (!e.matches(PyExc_Exception)) throw e;  // an interrupt
  require_dense(object, arg);
  const std::string why = py::str(e.value());
  throw py::type_error(arg.text() + " cannot be read through DLPack: " + why.substr(0, why.find('\n')));
}

bool is_of(const Tensor& t, DType dtype) {
  return t.lanes == 1 && t.bits == 8 * bytes_of(dtype) &&
         t.code == (dtype == DType::bfloat16 ? kBfloat : kFloat);
}

// An unsupported type for messages: its usual name, or DLPack's numbers.
std::string type_text(const Tensor& t) {
  constexpr const char* kinds[] = {"int", "uint", "float", nullptr, "bfloat", "complex"};
  const std::string bits = std::to_string(t.bits);
  if (t.lanes == 1 && t.code == kBool) return "dtype bool";
  if (t.lanes == 1 && t.code < std::size(kinds) && kinds[t.code])
    return "dtype " + (kinds[t.code] + bits);
  return "DLPack type code " + std::to_string(t.code) + " with " + bits + " bits";
}

DType dtype_of(const Tensor& t, const ArgName& arg) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16, DType::float64})
    if (is_of(t, dtype)) return dtype;
  throw py::type_error(arg.text() + " has " + type_text(t) + ", expected " + kFloatTypes);
}

Array describe(const Tensor& t, bool writable, const ArgName& arg) {
  if (t.device_type != kCpu && t.device_type != kCudaHost && !is_cuda(t.device_type))
    throw py::type_error(arg.text() + " lives on a device (DLPack device type " +
                         std::to_string(t.device_type) + "), expected host memory or CUDA's");
  require_few_axes(t.ndim, arg);
  Array a;
  if (is_cuda(t.device_type)) {
    a.device = t.device_id;
    a.stream = kLegacyStream;  // on which the producer has made it ready
  }
  a.data = static_cast<char*>(t.data) + t.byte_offset;
  a.dtype = dtype_of(t, arg);
  a.writable = writable;
  a.ndim = t.ndim;
  a.numbers = std::make_unique<py::ssize_t[]>(2 * t.ndim);
  py::ssize_t stride = py::ssize_t(bytes_of(a.dtype));
  for (int d = t.ndim - 1; d >= 0; --d) {
    a.numbers[d] = py::ssize_t(t.shape[d]);
    a.numbers[t.ndim + d] = t.strides ? t.strides[d] * py::ssize_t(bytes_of(a.dtype)) : stride;
    stride = py::ssize_t(uint64_t(stride) * uint64_t(t.shape[d]));  // may overflow where all is empty
  }
  a.shape = a.numbers.get();
  a.strides = a.numbers.get() + t.ndim;
  if (!t.data && a.size() > 0) throw py::type_error(arg.text() + " has no memory of its own");
  if (a.device != kHost) require_aligned(a, arg);
  return a;
}

}  // namespace

Array read_dlpack(py::handle object, const ArgName& arg) {
  bool cuda = false;
  py::object capsule;
  try {
    cuda = on_cuda(object);
    if (cuda) require_cuda(object, arg);
    capsule = capsule_of(object, cuda);
  } catch (const py::error_already_set& e) {
    refuse(e, object, arg);
  }
  Array a;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    const auto* m = static_cast<Versioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    a = describe(m->tensor, !(m->flags & kReadOnly), arg);
    a.is_copy = m->flags & kIsCopied;
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    const auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    a = describe(m->tensor, true, arg);
  } else {
    throw py::type_error(arg.text() + ".__dlpack__() gave no DLPack capsule");
  }
  a.owner = std::move(capsule);
  return a;
}

// ---- the C functions ----

const Exchange* exchange_of(py::handle type) {
  constexpr const char* name = "dlpack_exchange_api";
  const py::object own = py::getattr(type, "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(own.ptr(), name)) return nullptr;
  const auto* found = static_cast<const Exchange*>(PyCapsule_GetPointer(own.ptr(), name));
  while (found && found->major != 1) found = found->previous;
  return found && found->describe && found->current_stream ? found : nullptr;
}

Array read_exchanged(const Exchange& with, py::handle object, const ArgName& arg) {
  Tensor t;
  try {
    if (with.describe(object.ptr(), &t)) throw py::error_already_set();
  } catch (const py::error_already_set& e) {
    refuse(e, object, arg);
  }
  if (is_cuda(t.device_type)) require_cuda(object, arg);
  Array a = describe(t, true, arg);
  a.stream = nullptr;  // its library's current one
  a.owner = py::reinterpret_borrow<py::object>(object);
  return a;
}

bool has_layout(const Exchange& with, py::handle object, const void* data, DType dtype,
                const Layout& layout) {
  Tensor t;
  if (with.describe(object.ptr(), &t)) {
    clear_error();  // reading the array raises it again
    return false;
  }
  const bool same = static_cast<const char*>(t.data) + t.byte_offset == data && is_of(t, dtype) &&
                    size_t(t.ndim) == layout.shape.size() && t.strides;
  if (!same) return false;
  const auto itemsize = int64_t(bytes_of(dtype));
  for (int d = 0; d < t.ndim; ++d)
    if (t.shape[d] != layout.shape[d] || t.strides[d] * itemsize != layout.strides[d]) return false;
  return true;
}

void* exchanged_stream(const Exchange& with, int device) {
  void* stream = nullptr;
  if (with.current_stream(kCuda, device, &stream)) throw py::error_already_set();
  return stream ? stream : kLegacyStream;
}

}  // namespace fastopt::bind
