// How BatchNorm's channels are dealt out to blocks that hold them in shared memory, and where what a
// block holds stands there.
#pragma once

#include "cuda/batch_norm_passes.hpp"
#include "rules/batch_norm.hpp"
#include "rules/moments.hpp"

namespace fastopt::cuda {

// A cluster of blocks has one channel of planes, or of rows some that lie side by side; of the tree's
// blocks, here leaves, each of its blocks holds as many as any other, or one less, and it finishes a
// part of the channels. Two numbers that are powers of two are kept as their logarithms.
template <class P, bool rows>
struct Deal {
  static constexpr int leaf = rows ? kRowBlock : kPlaneBlock;  // values of a channel

  int wide;         // channels of a cluster, log2
  int blocks;       // of a cluster
  int finished;     // channels that a block finishes, log2; the last blocks may have none to finish
  int all, leaves;  // leaves of a channel, and of a block at most
  int values;       // that a block has room for

  // `blocks` is a power of two, and no more than there are leaves.
  Deal(const Channels& s, int wide_, int blocks_) : wide(wide_), blocks(blocks_), finished(wide_) {
    for (int n = blocks; n > 1 && finished > 0; n /= 2) --finished;
    all = int(over(s.count, leaf));
    leaves = (all + blocks - 1) / blocks;
    const int64_t positions = int64_t(leaves) * leaf;
    values = int(positions < s.count ? positions : s.count) << wide;
  }

  __host__ __device__ __forceinline__ int bits() const { return rows ? wide : 0; }
  __host__ __device__ __forceinline__ int channels() const { return 1 << bits(); }
  // From a value to the next that a thread sums, log2.
  __host__ __device__ __forceinline__ int step() const { return rows ? wide : 4; }
  static_assert(kLanes == 1 << 4);
  // The leaf of a block's value i.
  __host__ __device__ __forceinline__ int leaf_of(int i) const {
    return int(unsigned(i) / leaf >> bits());
  }

  // ---- shared memory: arrays, sums of leaves, all leaves of what is finished, rules ----

  // In the order of positions, and after each leaf there is a gap: who sums another one at the same
  // time reads other banks.
  __host__ __device__ __forceinline__ int place(int i) const { return i + (leaf_of(i) << step()); }
  __host__ __device__ __forceinline__ int room() const {
    return (place(values - 1) / kPerVector<P> + 1) * kPerVector<P>;
  }
  // Leaves of a block that is a cluster of its own are all there already.
  __host__ __device__ __forceinline__ int sums() const { return leaves << bits(); }
  __host__ __device__ __forceinline__ int gathered() const { return blocks > 1 ? all << finished : 0; }

  // Rules of the channels that a block finishes, and of all; backward's are the larger ones.
  int64_t bytes(int arrays) const {
    return arrays * int64_t(room() * sizeof(P)) + (sums() + gathered()) * int64_t(sizeof(Pair)) +
           2 * channels() * int64_t(sizeof(NormalizeBackward<Compute<P>>));
  }
};

}  // namespace fastopt::cuda
