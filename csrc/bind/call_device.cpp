#include "bind/call_device.hpp"

#include <pybind11/stl.h>

#include <algorithm>

#include "bind/array_library.hpp"
#include "bind/cuda_array.hpp"
#include "cpu/engine.hpp"

namespace fastopt::bind {
namespace {

constexpr const char* kCapsule = "fastopt.Backend";

// The second extension module is imported when the first CUDA array is passed.
struct Cuda {
  const Backend* backend = nullptr;
  std::string trouble = "";
  bool looked = false;
};

Cuda load_cuda() {
  Cuda now{.looked = true};
  try {
    const py::module_ module = py::module_::import("fastopt._cuda");
    now.backend =
        py::reinterpret_borrow<py::capsule>(module.attr("backend")).get_pointer<const Backend>();
    now.trouble = py::str(module.attr("trouble")());
    if (!now.trouble.empty()) now.trouble = "fastopt cannot use CUDA here: " + now.trouble;
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_Exception)) throw;  // an interrupt
    now.trouble = e.matches(PyExc_ModuleNotFoundError)
                      ? "this build of fastopt has no CUDA part"
                      : "fastopt's CUDA part cannot be loaded: " + std::string(py::str(e.value()));
  }
  return now;
}

Cuda cuda;

std::string device_text(int device) {
  return device == kHost ? "in host memory" : "on CUDA device " + std::to_string(device);
}

}  // namespace

std::string cuda_trouble() {
  // Other threads may run during an import: they must not see a partial result. Loading twice is
  // harmless.
  if (!cuda.looked) cuda = load_cuda();
  return cuda.trouble;
}

void require_cuda(py::handle object, const ArgName& arg) {
  const std::string trouble = cuda_trouble();
  if (trouble.empty()) return;
  const std::string type = type_name(object);
  throw py::type_error(arg.text() + " is a CUDA array (" + type + "), but " + trouble);
}

const Backend& engine_of(const Place& place) {
  if (place.on_host()) return cpu::backend;
  if (!cuda.backend) throw std::runtime_error("the CUDA engine of these arrays is no longer in use");
  return *cuda.backend;
}

void CallDevice::add(Array& a, const ArgName& arg) {
  if (a.size() == 0) return;
  if (a.device == kUnknownDevice) a.device = cuda.backend->device_of(a.data);
  if (!owner_) {
    owner_ = a.owner;
    first_ = arg;
    place_.device = a.device;
    return refresh_stream();
  }
  if (a.device != place_.device)
    throw py::value_error(arg.text() + " is " + device_text(a.device) + ", but " + first_.text() +
                          " is " + device_text(place_.device));
}

void CallDevice::refresh_stream() {
  if (place_.on_host()) return;
  const Place last = place_;
  Stream now = current_stream(owner_, place_.device);
  if (now.handle == last.stream) return;
  place_.stream = now.handle;
  if (is_alive(last.stream) && !engine().is_capturing(last)) engine().wait_for(place_, last.stream);
  stream_ = std::move(now.object);
}

// Whether an earlier call's stream still exists: it is a default stream or torch's, or its object is
// held.
bool CallDevice::is_alive(void* stream) const {
  const bool is_default = reinterpret_cast<uintptr_t>(stream) <= 2;
  return stream && (is_default || !stream_.is_none() || library_of(owner_).torch);
}

const Exchange* CallDevice::exchange() const {
  return owner_ ? library_of(owner_).dlpack_exchange : nullptr;
}

// torch's tensors and parameters are two types with the same exchange functions.
bool CallDevice::is_of_library(py::handle array) const {
  if (!owner_) return false;
  const Exchange* const own = exchange();
  return Py_TYPE(array.ptr()) == Py_TYPE(owner_.ptr()) ||
         (own && own == library_of(array).dlpack_exchange);
}

void CallDevice::wait_for(const Array& a) {
  if (a.device == kHost || a.size() == 0) return;
  const bool asks = !a.stream && !is_of_library(a.owner);
  void* const stream = asks ? current_stream(a.owner, a.device).handle : a.stream;
  if (!stream || std::find(waited_.begin(), waited_.end(), stream) != waited_.end()) return;
  if (engine().wait_for(place_, stream)) waited_.push_back(stream);
}

void CallDevice::release_waited_streams() noexcept {
  try {
    for (void* const stream : std::exchange(waited_, {})) {
      const Place theirs{place_.device, stream};
      if (engine().is_capturing(theirs) ==
          engine().is_capturing(place_))  // otherwise the wait would be captured
        engine().wait_for(theirs, place_.stream);
    }
  } catch (const std::exception&) {  // if the device is lost, for example, the next call reports it
  }
}

CallDevice resolve_device(std::initializer_list<std::pair<Array*, const char*>> arrays) {
  CallDevice device;
  for (const auto& [a, role] : arrays)
    if (a->owner) device.add(*a, {role});
  for (const auto& [a, role] : arrays)
    if (a->owner) device.wait_for(*a);
  return device;
}

void register_call_device(py::module_& m) {
  m.def("cuda_trouble", cuda_trouble, "Why CUDA arrays cannot be worked on here; empty if they can.");
  m.def(
      "check_array",
      [](py::handle array, const char* role) { return shape_of(read_array(array, {role})); },
      py::arg("array"), py::arg("role"),
      "Raise what is wrong with an array that is only read, else return its shape.");
  m.def(
      "use_cuda",
      [](const std::optional<py::capsule>& backend) {
        cuda = {};
        if (!backend) return;
        cuda = {static_cast<const Backend*>(PyCapsule_GetPointer(backend->ptr(), kCapsule)), "", true};
        if (!cuda.backend) throw py::error_already_set();
      },
      py::arg("backend"), "Work on CUDA arrays with this engine; None: look for it again. For tests.");
}

}  // namespace fastopt::bind
