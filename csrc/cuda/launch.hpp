// Calls into CUDA: errors, the current device, launches. Compiled by a C++ compiler with the shim of
// tests/cuda_shim, the same sources run on the host.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "core/place.hpp"

#ifdef __CUDACC__
#define FASTOPT_GRID_CONSTANT __grid_constant__  // indexed where it lies, never copied
#else
#define FASTOPT_GRID_CONSTANT
#endif

namespace fastopt::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next call would report it again
  throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
}

inline cudaStream_t stream_of(const Place& place) { return static_cast<cudaStream_t>(place.stream); }

// Makes a device current within a scope. Afterwards the thread has the context that it had before,
// possibly none: cudaSetDevice would create one on the device that it names, which takes hundreds of
// megabytes there.
class DeviceGuard {
 public:
  explicit DeviceGuard(const Place& place);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  void* context_ = nullptr;
  int device_ = kHost;  // as before, if the driver's functions are not found
  bool changed_ = false;
};

inline int device_attribute(const Place& place, cudaDeviceAttr what) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, what, place.device), "cannot ask the device");
  return value;
}

// Shared memory that a launch may ask for, less what the system takes and a kernel declares.
inline int max_dynamic_shared(const Place& place) {
  return device_attribute(place, cudaDevAttrMaxSharedMemoryPerBlockOptin) - 1024;
}

// What launches do from compute capability 9.0 on, if kernels were compiled for that and nobody asks
// otherwise. Who asks, for tests and measurements, is told what is in force from now on, on the current
// device. It changes no result.

// Whether a kernel may come to the processors while the last blocks of the one before it still work,
// and wait there.
bool overlap_enabled(int device);
bool set_overlap(bool on);
// How many blocks of a kernel that can use it may be a cluster, 8 at most: they run at once and reach
// each other's shared memory.
int max_cluster_size(int device);
int set_max_cluster_size(int blocks);
// How many clusters run at once if each block has a processor. Those of a cluster lie side by side, in
// parts of a device that have not all the same number: 132 processors of an H100 held 30 clusters of 4.
int max_active_clusters(int device, int blocks);

// From here on the kernel after this one may come: when all blocks have called it.
__device__ __forceinline__ void launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// What every kernel begins with: before, it may read nothing but its arguments, and what no kernel
// writes that may still be at work.
__device__ __forceinline__ void grid_dependency_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  launch_dependents();
}

struct Grid {
  int64_t blocks;
  int threads;
  int64_t shared = 0;  // bytes, besides what the kernel declares
  int cluster = 1;     // blocks
};

// Queues a kernel on the caller's stream. The caller has made the device current.
template <class... Params, class... Args>
void launch(const Place& place, void (*kernel)(Params...), const Grid& g, Args... args) {
  if (g.blocks == 0) return;
  if (g.shared > 48 << 10)  // always as much, for another thread may be about to launch it with more
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, max_dynamic_shared(place)),
          "a kernel gets no shared memory");
  const dim3 grid{unsigned(g.blocks)}, block{unsigned(g.threads)};
#ifdef __CUDACC__
  cudaLaunchAttribute attributes[2]{};
  unsigned count = 0;
  if (overlap_enabled(place.device)) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (g.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {unsigned(g.cluster), 1, 1};
  }
  const cudaLaunchConfig_t config{grid, block, size_t(g.shared), stream_of(place), attributes, count};
  check(cudaLaunchKernelEx(&config, kernel, Params(args)...), "cannot launch a kernel");
#else
  shim::launch(kernel, grid, block, size_t(g.shared), unsigned(g.cluster), stream_of(place), args...);
  check(cudaGetLastError(), "cannot launch a kernel");
#endif
}
template <class... Params, class... Args>
void launch(const Place& place, void (*kernel)(Params...), int64_t blocks, int threads, Args... args) {
  launch(place, kernel, Grid{blocks, threads}, args...);
}

// The shared memory that a launch has asked for.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ uint4 room[];
  return reinterpret_cast<T*>(room);
#else
  return static_cast<T*>(shim::shared_room());
#endif
}

}  // namespace fastopt::cuda
