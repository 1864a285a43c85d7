// How BatchNorm's channels are distributed over blocks that hold them in shared memory, and where a
// block stores what.
#pragma once

#include "cuda/batch_norm_join.hpp"
#include "rules/batch_norm.hpp"

namespace fastopt::cuda {

inline constexpr int kMaxThreads = 512;  // per block

// In planes layout, each thread block (or cluster of blocks) owns one channel; in rows layout, each
// block owns the adjacent channels of one vector. The blocks of the reduction tree are spread evenly
// over a cluster: their numbers differ by at most one.
template <class P, bool rows>
struct SmemLayout {
  static constexpr int channels = rows ? kPerVector<P> : 1;
  static constexpr int stride = rows ? channels : kLanes;            // distance of a thread's values
  static constexpr int tree_block = rows ? kRowBlock : kPlaneBlock;  // values of one channel
  static constexpr int quarter = tree_block / kQuarters * channels;  // values of all channels

  int blocks;            // per cluster
  int all, tree_blocks;  // tree blocks of a channel, and the maximum per thread block
  int values;            // per block at most

  // There must be no more blocks than tree blocks.
  SmemLayout(const Channels& s, int blocks_) : blocks(blocks_) {
    all = int(ceil_div(s.count, tree_block));
    tree_blocks = ceil_div(all, blocks);
    const int64_t positions = int64_t(tree_blocks) * tree_block;
    values = int(positions < s.count ? positions : s.count) * channels;
  }

  // Number of threads that sum, each one lane or channel of a quarter.
  __host__ __device__ __forceinline__ int summing() const {
    return ceil_div(values, tree_block * channels) * kQuarters * stride;
  }

  // ---- shared memory: arrays; sums of tree blocks, of the cluster, of threads; weights; rules ----

  // Values are stored in position order with padding after each quarter, so that threads summing
  // different quarters hit different shared-memory banks.
  __host__ __device__ __forceinline__ static int place(int i) { return i + i / quarter * stride; }
  __host__ __device__ __forceinline__ int padded() const {
    return (place(values - 1) / kPerVector<P> + 1) * kPerVector<P>;
  }
  // A block without a cluster already has all tree blocks.
  __host__ __device__ __forceinline__ int sums() const {
    return tree_blocks * channels + (blocks > 1 ? all : 0);
  }
  // Threads that sum at the same time.
  __host__ __device__ __forceinline__ int summing_at_once() const {
    return summing() < kMaxThreads ? summing() : kMaxThreads;
  }

  // Sized for backward's rules, which are larger than forward's.
  int64_t bytes(int arrays) const {
    return arrays * int64_t(padded() * sizeof(P)) +
           (sums() + summing_at_once()) * int64_t(sizeof(Pair)) + kLevels * int64_t(sizeof(Weights)) +
           channels * int64_t(sizeof(NormalizeBackward<Compute<P>>));
  }
};

}  // namespace fastopt::cuda
