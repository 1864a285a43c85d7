// The part of NVIDIA's runtime API that the engine and the tests use, under the same names. Defined
// in host.cpp with C linkage, so that Python can call it as well.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vectors.h"

#define CUDART_VERSION 13000

enum cudaError {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
  cudaErrorNotSupported = 801,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureUnmatched = 903,
  cudaErrorStreamCaptureUnjoined = 904,
  cudaErrorStreamCaptureIsolation = 905,
  cudaErrorStreamCaptureImplicit = 906,
  cudaErrorCapturedEvent = 907,
  cudaErrorInvalidClusterSize = 912,
  cudaErrorUnknown = 999,
};
using cudaError_t = cudaError;

enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault,
};

enum cudaMemoryType {
  cudaMemoryTypeUnregistered,
  cudaMemoryTypeHost,
  cudaMemoryTypeDevice,
  cudaMemoryTypeManaged
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
  void *devicePointer, *hostPointer;
};

enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed,
};
enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone,
  cudaStreamCaptureStatusActive,
  cudaStreamCaptureStatusInvalidated,
};

enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrL2CacheSize = 38,
  cudaDevAttrMaxThreadsPerMultiProcessor = 39,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxBlocksPerMultiprocessor = 106,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrMemoryPoolsSupported = 115,
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
};
struct cudaFuncAttributes {
  int ptxVersion;  // 10 * major + minor
};

enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
enum cudaMemAllocationType { cudaMemAllocationTypePinned = 1 };
enum cudaMemLocationType { cudaMemLocationTypeDevice = 1 };
struct cudaMemPoolProps {
  cudaMemAllocationType allocType;
  struct {
    cudaMemLocationType type;
    int id;
  } location;
};

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
using cudaMemPool_t = struct CUmemPoolHandle_st*;

#define cudaStreamLegacy ((cudaStream_t)0x1)
#define cudaStreamPerThread ((cudaStream_t)0x2)
#define cudaStreamDefault 0x0u
#define cudaStreamNonBlocking 0x1u
#define cudaEventDefault 0x0u
#define cudaEventDisableTiming 0x2u
#define cudaEventWaitDefault 0x0u
#define cudaInvalidDeviceId (-2)

#define SHIM_API __attribute__((visibility("default")))
extern "C" {

SHIM_API const char* cudaGetErrorName(cudaError_t);
SHIM_API const char* cudaGetErrorString(cudaError_t);
SHIM_API cudaError_t cudaGetLastError();
SHIM_API cudaError_t cudaPeekAtLastError();

SHIM_API cudaError_t cudaDriverGetVersion(int* version);
SHIM_API cudaError_t cudaGetDeviceCount(int* count);
SHIM_API cudaError_t cudaGetDevice(int* device);
SHIM_API cudaError_t cudaSetDevice(int device);
SHIM_API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device);
SHIM_API cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value);
SHIM_API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void* kernel);
SHIM_API cudaError_t cudaDeviceSynchronize();

SHIM_API cudaError_t cudaMalloc(void** p, size_t size);
SHIM_API cudaError_t cudaFree(void* p);
SHIM_API cudaError_t cudaMallocAsync(void** p, size_t size, cudaStream_t);
SHIM_API cudaError_t cudaFreeAsync(void* p, cudaStream_t);
SHIM_API cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind);
SHIM_API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind,
                                     cudaStream_t = nullptr);
SHIM_API cudaError_t cudaMemset(void* p, int value, size_t size);
SHIM_API cudaError_t cudaMemsetAsync(void* p, int value, size_t size, cudaStream_t = nullptr);
SHIM_API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes*, const void* p);
SHIM_API cudaError_t cudaMemPoolCreate(cudaMemPool_t*, const cudaMemPoolProps*);
SHIM_API cudaError_t cudaMallocFromPoolAsync(void** p, size_t size, cudaMemPool_t, cudaStream_t);
SHIM_API cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value);

SHIM_API cudaError_t cudaStreamCreate(cudaStream_t*);
SHIM_API cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned flags);
SHIM_API cudaError_t cudaStreamDestroy(cudaStream_t);
SHIM_API cudaError_t cudaStreamSynchronize(cudaStream_t);
SHIM_API cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned flags = 0);
SHIM_API cudaError_t cudaEventCreate(cudaEvent_t*);
SHIM_API cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned flags);
SHIM_API cudaError_t cudaEventDestroy(cudaEvent_t);
SHIM_API cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t = nullptr);

SHIM_API cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
SHIM_API cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*);
SHIM_API cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*);
SHIM_API cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*);
SHIM_API cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long flags = 0);
SHIM_API cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
SHIM_API cudaError_t cudaGraphDestroy(cudaGraph_t);
SHIM_API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);

// Driver API: the calling thread's context, or null. A context belongs to one device.
SHIM_API int cuCtxGetCurrent(void** context);
SHIM_API int cuCtxSetCurrent(void* context);

// For tests: counts of the host's requests since the last reset. A copy to pageable host memory
// synchronizes.
SHIM_API int64_t shim_launches();   // a captured launch is counted when it is captured
SHIM_API int64_t shim_clustered();  // launches of clusters
SHIM_API int64_t shim_graph_launches();
SHIM_API int64_t shim_allocations();
SHIM_API int64_t shim_synchronisations();
SHIM_API int64_t shim_copies();  // including memsets
SHIM_API int64_t shim_waits();   // by streams for events
SHIM_API void shim_reset_counts();
// Bytes that are allocated and not yet freed.
SHIM_API int64_t shim_bytes_held();
// The allocation after `successes` more fails, once.
SHIM_API void shim_fail_allocation(int64_t successes);
// The devices (one bit each) on which a call has needed a context since the last call of this
// function.
SHIM_API int shim_contexts();
// Initially 2; with 0 there is no device, and with -1 no driver.
SHIM_API void shim_set_devices(int count);
// Of the first device, initially 4.
SHIM_API void shim_set_processors(int count);
// From now on the host waits for a device until this file can be read from, or a timeout; -1: it
// does not wait.
SHIM_API void shim_wait_on(int file);
SHIM_API int64_t shim_waited_in_vain();  // the number of timeouts
}

template <class T>
cudaError_t cudaMalloc(T** p, size_t size) {
  return cudaMalloc(reinterpret_cast<void**>(p), size);
}
template <class T>
cudaError_t cudaMallocAsync(T** p, size_t size, cudaStream_t stream) {
  return cudaMallocAsync(reinterpret_cast<void**>(p), size, stream);
}
