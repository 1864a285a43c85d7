// Communication between the threads of a block: their indices, barriers, and exchanges within a
// warp; and between the blocks of a cluster.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "vectors.h"

#ifdef SHIM_THREADS
#define SHIM_PER_THREAD thread_local
#else
#define SHIM_PER_THREAD  // set whenever a fiber continues
#endif

extern SHIM_PER_THREAD uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace shim {

// The state of a thread: running, returned, or waiting in one of these for others. Named in
// block.cpp.
enum class Op {
  running,
  returned,
  syncthreads,
  syncwarp,
  shfl,
  shfl_up,
  shfl_down,
  shfl_xor,
  ballot,
  cluster
};

void sync_block();

// The rank of the calling thread's block in its cluster; a block that was launched without one is a
// cluster of its own.
inline constexpr int kMostBlocks = 8;  // of a cluster, on every device
extern SHIM_PER_THREAD unsigned rank;
unsigned blocks_of_cluster();
void arrive_at_cluster();  // followed by one call of
void wait_for_cluster();

// Waits until every lane of `mask` has called this with the same op and mask; then returns the
// value of lane `from` or, if `from` is kBallot, the set of lanes whose value is not zero.
inline constexpr int kBallot = -1;
uint64_t exchange(Op op, unsigned mask, uint64_t value, int from);

int lane();  // of the calling thread

template <class T>
T shuffle(Op op, unsigned mask, T value, int from) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(op, mask, bits, from);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace shim

inline void __syncthreads() { shim::sync_block(); }
inline unsigned __clusterRelativeBlockRank() { return shim::rank; }
inline unsigned __clusterSizeInBlocks() { return shim::blocks_of_cluster(); }
inline void __cluster_barrier_arrive() { shim::arrive_at_cluster(); }
inline void __cluster_barrier_wait() { shim::wait_for_cluster(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  shim::exchange(shim::Op::syncwarp, mask, 0, shim::kBallot);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return unsigned(shim::exchange(shim::Op::ballot, mask, predicate != 0, shim::kBallot));
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// A warp may be divided into segments of `width` lanes, a power of two. A lane that would read
// beyond its segment reads its own value; __shfl_xor_sync may read an earlier segment.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  const int first = shim::lane() & ~(width - 1);
  return shim::shuffle(shim::Op::shfl, mask, value, first | (source & (width - 1)));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int own = shim::lane(), from = own - int(delta);
  return shim::shuffle(shim::Op::shfl_up, mask, value, from < (own & ~(width - 1)) ? own : from);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int own = shim::lane(), from = own + int(delta);
  return shim::shuffle(shim::Op::shfl_down, mask, value, from > (own | (width - 1)) ? own : from);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize) {
  const int own = shim::lane(), from = own ^ lanes;
  return shim::shuffle(shim::Op::shfl_xor, mask, value, from > (own | (width - 1)) ? own : from);
}
