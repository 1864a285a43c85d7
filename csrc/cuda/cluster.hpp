// Blocks that are resident at the same time and read each other's shared memory, from compute
// capability 9.0 on.
#pragma once

#include <type_traits>

#include "cuda/launch.hpp"

namespace fastopt::cuda {

// A block without a cluster.
struct SingleBlock {
  __device__ __forceinline__ static int rank() { return 0; }
  __device__ __forceinline__ static int blocks() { return 1; }
  __device__ __forceinline__ static void arrive() {}
  __device__ __forceinline__ static void wait() {}
  template <class T>
  __device__ __forceinline__ static T read(const T* own, int) {
    return *own;
  }
};

#if defined(__CUDACC__) && !(defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
using Cluster = SingleBlock;
#else

struct Cluster {
  // The rank of the calling block, and the number of blocks. They are queried each time, so that they
  // occupy no registers.
  __device__ __forceinline__ static int rank() { return int(__clusterRelativeBlockRank()); }
  __device__ __forceinline__ static int blocks() { return int(__clusterSizeInBlocks()); }

  // All threads of all blocks must call these alternately. After wait(), a thread sees what others
  // wrote before they arrived.
  __device__ __forceinline__ static void arrive() { __cluster_barrier_arrive(); }
  __device__ __forceinline__ static void wait() { __cluster_barrier_wait(); }

  // Reads from another block's shared memory, at the place where `own` is in the calling block's.
  template <class T>
  __device__ __forceinline__ static T read(const T* own, int block) {
#ifdef __CUDACC__
    constexpr bool wide = alignof(T) % 8 == 0;
    std::conditional_t<wide, uint64_t, uint32_t> words[sizeof(T) / (wide ? 8 : 4)];
    const auto here = uint32_t(__cvta_generic_to_shared(own));
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(block));
#pragma unroll
    for (auto& word : words) {
      if constexpr (wide)
        asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(word) : "r"(there) : "memory");
      else
        asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(word) : "r"(there) : "memory");
      there += uint32_t(sizeof(word));
    }
    T value;
    __builtin_memcpy(&value, words, sizeof(T));
    return value;
#else
    const auto at = reinterpret_cast<const char*>(own) - static_cast<char*>(shim::shared_room());
    return *reinterpret_cast<const T*>(static_cast<char*>(shim::shared_room(unsigned(block))) + at);
#endif
  }
};

#endif

}  // namespace fastopt::cuda
