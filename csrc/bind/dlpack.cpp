#include "bind/dlpack.hpp"

#include "bind/cuda_array.hpp"
#include "bind/place.hpp"

namespace fastopt::bind {
namespace {

// The C structs of DLPack 1.0 (dmlc.github.io/dlpack): an interface, laid out here as it is specified.
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
constexpr uint64_t kReadOnly = 1;
constexpr int kCpu = 1, kCuda = 2, kCudaHost = 3, kFloat = 2, kBfloat = 4;

// Producers older than DLPack 1.0 do not know max_version. On CUDA the legacy default stream is named:
// the standard takes it where none is, but torch then makes nobody wait.
py::object capsule_of(py::handle object, bool cuda) {
  const py::object produce = object.attr("__dlpack__");
  py::dict stream;
  if (cuda) stream["stream"] = 1;
  try {
    return produce(py::arg("max_version") = py::make_tuple(1, 0), **stream);
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_TypeError)) throw;
  }
  return produce(**stream);
}

py::object capsule_of(py::handle object, bool cuda, const Where& where) {
  try {
    return capsule_of(object, cuda);
  } catch (py::error_already_set& e) {
    throw py::type_error(where.text() +
                         " cannot be read through DLPack: " + std::string(py::str(e.value())));
  }
}

bool on_cuda(py::handle object) {
  if (!py::hasattr(object, "__dlpack_device__")) return false;
  return py::tuple(object.attr("__dlpack_device__")())[0].cast<int>() == kCuda;
}

DType dtype_of(const Tensor& t, const Where& where) {
  if (t.lanes == 1) {
    if (t.code == kBfloat && t.bits == 16) return DType::bfloat16;
    if (t.code == kFloat && t.bits == 16) return DType::float16;
    if (t.code == kFloat && t.bits == 32) return DType::float32;
    if (t.code == kFloat && t.bits == 64) return DType::float64;
  }
  throw py::type_error(where.text() + " has DLPack type code " + std::to_string(t.code) + " with " +
                       std::to_string(t.bits) +
                       " bits, expected float16, bfloat16, float32 or float64");
}

Array describe(const Tensor& t, bool writable, const Where& where) {
  if (t.device_type != kCpu && t.device_type != kCuda && t.device_type != kCudaHost)
    throw py::type_error(where.text() + " lives on a device (DLPack device type " +
                         std::to_string(t.device_type) + "), expected host memory or CUDA's");
  Array a;
  if (t.device_type == kCuda) {
    a.device = t.device_id;
    a.stream = kLegacyStream;  // for which the producer has made it ready
  }
  a.data = static_cast<char*>(t.data) + t.byte_offset;
  a.dtype = dtype_of(t, where);
  a.writable = writable;
  a.ndim = t.ndim;
  a.numbers = std::make_unique<py::ssize_t[]>(2 * t.ndim);
  py::ssize_t stride = py::ssize_t(bytes_of(a.dtype));
  for (int d = t.ndim - 1; d >= 0; --d) {
    a.numbers[d] = py::ssize_t(t.shape[d]);
    a.numbers[t.ndim + d] = t.strides ? t.strides[d] * py::ssize_t(bytes_of(a.dtype)) : stride;
    stride *= py::ssize_t(t.shape[d]);
  }
  a.shape = a.numbers.get();
  a.strides = a.numbers.get() + t.ndim;
  return a;
}

}  // namespace

Array read_dlpack(py::handle object, const Where& where) {
  const bool cuda = on_cuda(object);
  if (cuda) require_cuda(object, where);
  py::object capsule = capsule_of(object, cuda, where);
  Array a;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    const auto* m = static_cast<Versioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    a = describe(m->tensor, !(m->flags & kReadOnly), where);
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    const auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    a = describe(m->tensor, true, where);
  } else {
    throw py::type_error(where.text() + ".__dlpack__() gave no DLPack capsule");
  }
  a.owner = std::move(capsule);
  return a;
}

}  // namespace fastopt::bind
