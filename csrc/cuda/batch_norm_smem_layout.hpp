// How BatchNorm's channels are dealt out to blocks that hold them in shared memory, and where what a
// block holds stands there.
#pragma once

#include "cuda/batch_norm_join.hpp"
#include "rules/batch_norm.hpp"

namespace fastopt::cuda {

inline constexpr int kMaxThreads = 512;  // of a block

// Of planes a block, or a cluster of blocks, has one channel, of rows a block has those of a vector,
// side by side. Of the tree's blocks, here tree_blocks, each block of a cluster holds as many as any
// other, or one less.
template <class P, bool rows>
struct SmemLayout {
  static constexpr int channels = rows ? kPerVector<P> : 1;
  static constexpr int stride =
      rows ? channels : kLanes;  // from a value to the next that a thread sums
  static constexpr int tree_block = rows ? kRowBlock : kPlaneBlock;  // values of a channel
  static constexpr int quarter = tree_block / kQuarters * channels;  // values of all

  int blocks;            // of a cluster
  int all, tree_blocks;  // tree_blocks of a channel, and of a block at most
  int values;            // that a block has padded for

  // There are no more blocks than tree_blocks.
  SmemLayout(const Channels& s, int blocks_) : blocks(blocks_) {
    all = int(ceil_div(s.count, tree_block));
    tree_blocks = ceil_div(all, blocks);
    const int64_t positions = int64_t(tree_blocks) * tree_block;
    values = int(positions < s.count ? positions : s.count) * channels;
  }

  // Threads that sum, each one lane or channel of a quarter.
  __host__ __device__ __forceinline__ int summing() const {
    return ceil_div(values, tree_block * channels) * kQuarters * stride;
  }

  // ---- shared memory: arrays; sums of tree_blocks, of a cluster's, of threads; weights; rules ----

  // In the order of positions, and after each quarter there is a gap: who sums another one at the same
  // time reads other banks.
  __host__ __device__ __forceinline__ static int place(int i) { return i + i / quarter * stride; }
  __host__ __device__ __forceinline__ int padded() const {
    return (place(values - 1) / kPerVector<P> + 1) * kPerVector<P>;
  }
  // Leaves of a block by itself are all there already.
  __host__ __device__ __forceinline__ int sums() const {
    return tree_blocks * channels + (blocks > 1 ? all : 0);
  }
  // Of as many threads as sum at a time.
  __host__ __device__ __forceinline__ int summing_at_once() const {
    return summing() < kMaxThreads ? summing() : kMaxThreads;
  }

  // Backward's rules are the larger ones.
  int64_t bytes(int arrays) const {
    return arrays * int64_t(padded() * sizeof(P)) +
           (sums() + summing_at_once()) * int64_t(sizeof(Pair)) + kLevels * int64_t(sizeof(Weights)) +
           channels * int64_t(sizeof(NormalizeBackward<Compute<P>>));
  }
};

}  // namespace fastopt::cuda
