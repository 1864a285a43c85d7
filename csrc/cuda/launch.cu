#include "cuda/launch.hpp"

#ifdef __CUDACC__
#include <dlfcn.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>

namespace fastopt::cuda {
namespace {

constexpr int kMaxClusterSize = 8;  // larger clusters do not fit on every device
std::atomic<bool> overlap_wanted = true;
std::atomic<int> cluster_size_wanted = kMaxClusterSize;

// The driver's functions for the calling thread's context. The runtime has already loaded the library.
struct Driver {
  int (*get_context)(void** context);
  int (*set_context)(void* context);
};
Driver find_driver() {
#ifdef __CUDACC__
  void* const library = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_NOW);
  if (!library) return {};
  return {reinterpret_cast<int (*)(void**)>(dlsym(library, "cuCtxGetCurrent")),
          reinterpret_cast<int (*)(void*)>(dlsym(library, "cuCtxSetCurrent"))};
#else
  return {cuCtxGetCurrent, cuCtxSetCurrent};
#endif
}
const Driver& driver() {
  static const Driver found = find_driver();
  return found;
}

// Caches what was queried of each device.
using Answers = std::array<std::atomic<int>, 64>;
template <class Ask>
int cached(Answers& answers, int device, Ask&& ask) {
  if (size_t(device) >= answers.size()) return ask();
  std::atomic<int>& own = answers[size_t(device)];  // 0: not queried yet; otherwise the value plus one
  if (own == 0) own = ask() + 1;
  return own - 1;
}

// Compiled like all other kernels.
__global__ void probe() { grid_dependency_wait(); }

// Machine code generated from older PTX, or by the driver's compiler from such PTX, neither waits for
// the preceding kernel nor supports clusters.
bool query_compiled_for_sm90() {
  cudaFuncAttributes about{};
  const cudaError_t error = cudaFuncGetAttributes(&about, reinterpret_cast<const void*>(probe));
  if (error != cudaSuccess) cudaGetLastError();  // or the next launch would report it
  return error == cudaSuccess && about.ptxVersion >= 90;
}

// These query the current device.
bool compiled_for_sm90(int device) {
  static Answers answers;
  return cached(answers, device, query_compiled_for_sm90);
}

#ifdef __CUDACC__
// For blocks that use all shared memory of a multiprocessor; 0 if the driver cannot tell.
int query_active_clusters(int device, int blocks) {
  const Place place{device};
  const auto kernel = reinterpret_cast<const void*>(probe);
  const int shared = max_dynamic_shared(place),
            processors = device_attribute(place, cudaDevAttrMultiProcessorCount);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {unsigned(blocks), 1, 1};
  const dim3 grid{unsigned(processors * blocks)}, block{32};
  const cudaLaunchConfig_t config{grid, block, size_t(shared), nullptr, &cluster, 1};
  int count = 0;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared) ==
          cudaSuccess &&
      cudaOccupancyMaxActiveClusters(&count, kernel, &config) == cudaSuccess)
    return count;
  cudaGetLastError();  // or the next launch would report it
  return 0;
}
#endif

}  // namespace

DeviceGuard::DeviceGuard(const Place& place) {
  const bool by_context = driver().get_context && driver().set_context;
  if (by_context && driver().get_context(&context_) != 0) context_ = nullptr;
  if (!by_context || context_) {
    check(cudaGetDevice(&device_), "no current device");
    if (device_ == place.device) return;
  }
  check(cudaSetDevice(place.device), "cannot use the arrays' device");
  changed_ = true;
}

DeviceGuard::~DeviceGuard() {
  if (!changed_) return;
  if (driver().get_context && driver().set_context)
    driver().set_context(context_);
  else if (cudaSetDevice(device_) != cudaSuccess)
    cudaGetLastError();  // or the next launch would report it
}

bool overlap_enabled(int device) { return overlap_wanted && compiled_for_sm90(device); }

int max_cluster_size(int device) { return compiled_for_sm90(device) ? cluster_size_wanted.load() : 1; }

int max_active_clusters(int device, int blocks) {
#ifdef __CUDACC__
  static Answers answers[kMaxClusterSize + 1];
  return cached(answers[blocks], device, [&] { return query_active_clusters(device, blocks); });
#else
  return device_attribute(Place{device}, cudaDevAttrMultiProcessorCount) /
         blocks;  // which tests change
#endif
}

bool set_overlap(bool on) {
  overlap_wanted = on;
  int device = kHost;
  return cudaGetDevice(&device) == cudaSuccess && overlap_enabled(device);
}

int set_max_cluster_size(int blocks) {
  cluster_size_wanted = std::clamp(blocks, 1, kMaxClusterSize);
  int device = kHost;
  return cudaGetDevice(&device) == cudaSuccess ? max_cluster_size(device) : 1;
}

}  // namespace fastopt::cuda
