// Errors, devices and counters.
#include <poll.h>

#include <iterator>
#include <utility>

#include "shim/block.h"
#include "state.h"

namespace shim {

std::recursive_mutex mutex;
Counts counts;
std::map<const void*, size_t> allowed_shared;
thread_local int device = 0;

namespace {

// A context is an address here.
char contexts[2];
thread_local char* context = nullptr;
int needed = 0;  // one bit per device

int devices = 2;
int waits_on = -1;
int64_t waited_in_vain = 0;
int processors = 4;  // few, so that little work fills a device; the other device differs
thread_local cudaError_t last_error = cudaSuccess;

struct Text {
  cudaError_t error;
  const char *name, *text;
};
#define SHIM_ERROR(name, text) {name, #name, text}
constexpr Text kTexts[] = {
    SHIM_ERROR(cudaSuccess, "no error"),
    SHIM_ERROR(cudaErrorInvalidValue, "invalid argument"),
    SHIM_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    SHIM_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    SHIM_ERROR(cudaErrorInsufficientDriver,
               "CUDA driver version is insufficient for CUDA runtime version"),
    SHIM_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    SHIM_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    SHIM_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    SHIM_ERROR(cudaErrorNotReady, "device not ready"),
    SHIM_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    SHIM_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    SHIM_ERROR(cudaErrorNotSupported, "operation not supported"),
    SHIM_ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    SHIM_ERROR(cudaErrorStreamCaptureInvalidated,
               "operation failed due to a previous error during capture"),
    SHIM_ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    SHIM_ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    SHIM_ERROR(cudaErrorStreamCaptureIsolation,
               "dependency created on uncaptured work in another stream"),
    SHIM_ERROR(cudaErrorStreamCaptureImplicit,
               "operation would make the legacy stream depend on a capturing "
               "blocking stream"),
    SHIM_ERROR(cudaErrorCapturedEvent,
               "operation not permitted on an event last recorded in a capturing stream"),
    SHIM_ERROR(cudaErrorInvalidClusterSize, "cluster misconfiguration"),
    SHIM_ERROR(cudaErrorUnknown, "unknown error"),
};
#undef SHIM_ERROR

const Text& text_of(cudaError_t error) {
  for (const Text& text : kTexts)
    if (text.error == error) return text;
  return kTexts[std::size(kTexts) - 1];
}

}  // namespace

void synchronise() {
  ++counts.synchronisations;
  pollfd file{waits_on, POLLIN, 0};
  if (waits_on >= 0 && poll(&file, 1, 2000) != 1) ++waited_in_vain;
}

cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t present() {
  return devices > 0 ? cudaSuccess : devices == 0 ? cudaErrorNoDevice : cudaErrorInsufficientDriver;
}

void need_context() {
  if (!context) context = &contexts[device];
  needed |= 1 << device;
}

bool exists(int ordinal) { return ordinal >= 0 && ordinal < devices; }

}  // namespace shim

using namespace shim;

const char* cudaGetErrorName(cudaError_t error) { return text_of(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return text_of(error).text; }
cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = devices < 0 ? 0 : CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = devices < 0 ? 0 : devices;
  return report(present());
}
cudaError_t cudaGetDevice(int* current) {
  *current = device;
  return report(present());
}
cudaError_t cudaSetDevice(int ordinal) {
  if (const cudaError_t error = present()) return report(error);
  if (!exists(ordinal)) return report(cudaErrorInvalidDevice);
  const Guard guard(mutex);
  device = ordinal;
  context = &contexts[device];
  need_context();
  return cudaSuccess;
}
int cuCtxGetCurrent(void** current) {
  *current = context;
  return 0;
}
int cuCtxSetCurrent(void* next) {
  context = static_cast<char*>(next);
  device = context ? int(context - contexts) : 0;
  return 0;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int ordinal) {
  if (const cudaError_t error = present()) return report(error);
  if (!exists(ordinal)) return report(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = 48 << 10;
      break;
    case cudaDevAttrWarpSize:
      *value = 32;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = ordinal == 0 ? processors : 3;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 4 << 20;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      *value = 32;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = kMostShared;
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      break;
    default:
      return report(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (const cudaError_t error = present()) return report(error);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > kMostShared)
    return report(cudaErrorInvalidValue);
  allowed_shared[kernel] = size_t(value);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* about, const void*) {
  if (const cudaError_t error = present()) return report(error);
  about->ptxVersion = 90;  // so that clusters are used
  return cudaSuccess;
}

int64_t shim_launches() { return counts.launches; }
int64_t shim_clustered() { return counts.clustered; }
int64_t shim_graph_launches() { return counts.graph_launches; }
int64_t shim_allocations() { return counts.allocations; }
int64_t shim_synchronisations() { return counts.synchronisations; }
int64_t shim_copies() { return counts.copies; }
int64_t shim_waits() { return counts.waits; }
void shim_reset_counts() { counts = {}; }
int shim_contexts() {
  const Guard guard(mutex);
  return std::exchange(needed, 0);
}
void shim_set_devices(int count) { devices = count; }
void shim_set_processors(int count) { processors = count; }
void shim_wait_on(int file) { waits_on = file; }
int64_t shim_waited_in_vain() { return waited_in_vain; }
