// The reduction tree over values in a block's shared memory (rules/moments.hpp).
#pragma once

#include "cuda/batch_norm_launches.hpp"
#include "rules/moments.hpp"

namespace fastopt::cuda {

inline constexpr int kLevels = 8;  // maximum depth of a tree in one block

// Computes the weights of the last pair on each level, for `nodes` adjacent nodes of `size` values
// each, the last of which ends with value `count`. On each tree level only the last pair can have
// unequal sizes. Its weights depend only on sizes, so they are computed while the block would
// otherwise wait for the sums. `last` has kLevels elements. Must be called by all threads, before a
// barrier.
__device__ __forceinline__ void weigh_last(Weights* last, int nodes, int64_t size, int64_t count) {
  const int level = int(threadIdx.x);
  if (level >= kLevels) return;
  const int distance = 1 << level, left = (nodes - 1) & -2 * distance, right = left + distance;
  if (right >= nodes) return;
  last[level] =
      weights_of(values_in(left, distance, size, count), values_in(right, distance, size, count));
}

// Reduces `trees` interleaved trees, a power of two: node i of tree t is pairs[i * trees + t], and the
// result is stored at i = 0. Must be called by all threads. Afterwards only the threads that joined the
// last pairs may read the results without a barrier.
template <class Combine>
__device__ __forceinline__ void join_neighbors(Pair* pairs, int trees, int nodes, int64_t size,
                                               const Weights* last) {
  double values = double(size);
  for (int level = 0, distance = trees; distance < nodes * trees;
       ++level, distance *= 2, values *= 2.0) {
    __syncthreads();
#pragma unroll 1
    for (int i = int(threadIdx.x); i + distance < nodes * trees; i += int(blockDim.x)) {
      if ((i & (2 * distance - trees)) != 0) continue;  // not the first of a pair on this level
      Pair &own = pairs[i], &other = pairs[i + distance];
      const Weights w = i + 2 * distance < nodes * trees ? even_weights(values) : last[level];
      Combine::join(own.first, own.second, other.first, other.second, w);
    }
  }
}

}  // namespace fastopt::cuda
