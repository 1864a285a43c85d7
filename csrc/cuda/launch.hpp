// Calls into CUDA: errors, the current device, kernel launches. With the shim in tests/cuda_shim, a
// C++ compiler compiles the same sources for the host.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "core/place.hpp"

#ifdef __CUDACC__
#define FASTOPT_GRID_CONSTANT __grid_constant__  // accessed in place, never copied
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

// Makes a device current within a scope. Afterwards the thread has the same context as before,
// possibly none. Restoring it by cudaSetDevice would create a context on the device that was current
// by default, which takes hundreds of megabytes there.
class DeviceGuard {
 public:
  explicit DeviceGuard(const Place& place);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  void* context_ = nullptr;
  int device_ = kHost;  // previous device, used if the driver's functions are not found
  bool changed_ = false;
};

inline int device_attribute(const Place& place, cudaDeviceAttr what) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, what, place.device), "cannot ask the device");
  return value;
}

// Shared memory that a launch may request: the device's limit minus what the system reserves and a
// kernel declares.
inline int max_dynamic_shared(const Place& place) {
  return device_attribute(place, cudaDevAttrMaxSharedMemoryPerBlockOptin) - 1024;
}

// Launch features of compute capability 9.0 and later, used if the kernels were compiled for it. The
// setters exist for tests and benchmarks and return the setting now in effect on the current device.
// None of this changes results.

// Whether a kernel may start while the last blocks of the preceding one are still running, and wait
// for them there.
bool overlap_enabled(int device);
bool set_overlap(bool on);
// Maximum cluster size of kernels that can use clusters, 8 at most: the blocks of a cluster are
// resident at the same time and can access each other's shared memory.
int max_cluster_size(int device);
int set_max_cluster_size(int blocks);
// Number of clusters that are resident at once if each block has a multiprocessor to itself. The
// blocks of a cluster share a part of the device, and parts differ in size: 132 multiprocessors
// of an H100 held 30 clusters of 4.
int max_active_clusters(int device, int blocks);

// Allows the next kernel in the stream to launch once every block has called this.
__device__ __forceinline__ void launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Every kernel calls this first. Before it, a kernel may read only its arguments and memory that no
// still-running kernel writes.
__device__ __forceinline__ void grid_dependency_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  launch_dependents();
}

struct Grid {
  int64_t blocks;
  int threads;
  int64_t shared = 0;  // bytes, in addition to what the kernel declares
  int cluster = 1;     // blocks per cluster
};

// Queues a kernel on the caller's stream. The device must be current.
template <class... Params, class... Args>
void launch(const Place& place, void (*kernel)(Params...), const Grid& g, Args... args) {
  if (g.blocks == 0) return;
  // always the maximum, because another thread may be about to launch it with more
  if (g.shared > 48 << 10)
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

// The dynamic shared memory of a launch.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ uint4 memory[];
  return reinterpret_cast<T*>(memory);
#else
  return static_cast<T*>(shim::shared_room());
#endif
}

}  // namespace fastopt::cuda
