// The tree over what a block of threads has in shared memory (rules/moments.hpp).
#pragma once

#include "cuda/batch_norm_launches.hpp"
#include "rules/moments.hpp"

namespace fastopt::cuda {

inline constexpr int kLevels = 8;  // so many the trees of one block have at most

// `nodes` neighbors of `size` values each, but the last, which ends with value `count`. On every
// level only the last two to be joined can differ in size: what they weigh is known before their sums
// are, and is computed while a block would only wait. `last` has kLevels. By all threads, before a
// barrier.
__device__ __forceinline__ void weigh_last(Weights* last, int nodes, int64_t size, int64_t count) {
  const int level = int(threadIdx.x);
  if (level >= kLevels) return;
  const int distance = 1 << level, left = (nodes - 1) & -2 * distance, right = left + distance;
  if (right >= nodes) return;
  last[level] =
      weights_of(values_in(left, distance, size, count), values_in(right, distance, size, count));
}

// Joins `trees` of them side by side, a power of two: neighbor i of tree t stands at pairs[i * trees +
// t], and the whole comes to stand at i = 0. By all threads; afterwards those see it who joined it
// last.
template <class Combine>
__device__ __forceinline__ void join_neighbors(Pair* pairs, int trees, int nodes, int64_t size,
                                               const Weights* last) {
  double values = double(size);
  for (int level = 0, distance = trees; distance < nodes * trees;
       ++level, distance *= 2, values *= 2.0) {
    __syncthreads();
#pragma unroll 1
    for (int i = int(threadIdx.x); i + distance < nodes * trees; i += int(blockDim.x)) {
      if ((i & (2 * distance - trees)) != 0) continue;  // whose turn it is to be joined
      Pair &own = pairs[i], &other = pairs[i + distance];
      const Weights w = i + 2 * distance < nodes * trees ? even_weights(values) : last[level];
      Combine::join(own.first, own.second, other.first, other.second, w);
    }
  }
}

}  // namespace fastopt::cuda
