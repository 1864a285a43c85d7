// What one block tells another: a number that only grows, set to zero by an earlier kernel.
#pragma once

#include "cuda/launch.hpp"

namespace fastopt::cuda {

// Who sees it raised sees what this thread wrote before, and what its block wrote before a barrier.
__device__ __forceinline__ void raise(unsigned* signal) {
#ifdef __CUDA_ARCH__
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(signal) : "memory");
#else
  ++*signal;
#endif
}

__device__ __forceinline__ unsigned raised(const unsigned* signal) {
#ifdef __CUDA_ARCH__
  unsigned times;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(times) : "l"(signal) : "memory");
  return times;
#else
  return *static_cast<const volatile unsigned*>(signal);
#endif
}

}  // namespace fastopt::cuda
