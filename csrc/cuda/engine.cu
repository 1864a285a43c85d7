#include "cuda/engine.hpp"

#include "cuda/batch_norm.hpp"
#include "cuda/device_buffer.hpp"
#include "cuda/dropout.hpp"
#include "cuda/scale.hpp"
#include "cuda/step.hpp"

namespace fastopt::cuda {
namespace {

int device_of(const void* data) {
  cudaPointerAttributes about{};
  check(cudaPointerGetAttributes(&about, data), "cannot ask about a pointer");
  const bool here = about.type == cudaMemoryTypeDevice || about.type == cudaMemoryTypeManaged;
  return here ? about.device : kHost;
}

bool captured(const Place& place) { return capture_state(place) == CaptureState::capturing; }

// A capture cannot wait for work outside it, and need not: that work is complete before the graph is
// replayed.
bool wait_for(const Place& place, void* stream) {
  if (stream == place.stream) return false;
  const DeviceGuard current(place);
  if (captured(place) && !captured({place.device, stream})) return false;
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cannot make an event");
  cudaError_t error = cudaEventRecord(event, static_cast<cudaStream_t>(stream));
  if (error == cudaSuccess) error = cudaStreamWaitEvent(stream_of(place), event, 0);
  const cudaError_t destroyed = cudaEventDestroy(event);  // takes effect once the event has completed
  check(error, "cannot wait for another stream");
  check(destroyed, "cannot destroy an event");
  return true;
}

std::string version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

}  // namespace

std::string trouble() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver)
    return "there is no NVIDIA driver, or one too old for CUDA " + version(CUDART_VERSION);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
    return "there is no CUDA device";
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

std::string describe() {
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  cudaGetLastError();
  return "runtime " + version(CUDART_VERSION) + ", driver " + (driver ? version(driver) : "none") +
         ", " + std::to_string(count) + (count == 1 ? " device" : " devices");
}

const Backend backend = {
    .name = "cuda",
    .step = step,
    .make_step_plan = make_step_plan,
    .destroy_step_plan = destroy_step_plan,
    .counts = counts,
    .set_counts = set_counts,
    .set_hypers = set_hypers,
    .norm = norm,
    .scale = scale,
    .batch_moments = batch_moments,
    .batch_norm_forward = batch_norm_forward,
    .batch_norm_backward = batch_norm_backward,
    .dropout = dropout,
    .allocate = allocate,
    .release = release,
    .allocate_retained = allocate_retained,
    .release_retained = release_retained,
    .copy_to_host = copy_to_host,
    .copy_to_device = copy_to_device,
    .device_of = device_of,
    .wait_for = wait_for,
    .is_capturing = captured,
};

}  // namespace fastopt::cuda

extern "C" __attribute__((visibility("default"))) const void* fastopt_cuda_backend() {
  return &fastopt::cuda::backend;
}

// For programs that load the engine directly.
extern "C" __attribute__((visibility("default"))) const char* fastopt_cuda_trouble() {
  static const std::string text = fastopt::cuda::trouble();
  return text.c_str();
}
extern "C" __attribute__((visibility("default"))) void fastopt_cuda_hold(int64_t bytes) {
  fastopt::cuda::set_smem_limit(bytes);
}
extern "C" __attribute__((visibility("default"))) bool fastopt_cuda_overlap(bool on) {
  return fastopt::cuda::set_overlap(on);
}
extern "C" __attribute__((visibility("default"))) int fastopt_cuda_cluster(int blocks) {
  return fastopt::cuda::set_max_cluster_size(blocks);
}
