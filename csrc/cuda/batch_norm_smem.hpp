// What a block does with its part of a channel in shared memory: sum it in tree order, and exchange
// sums within its cluster.
#pragma once

#include "cuda/batch_norm_smem_layout.hpp"
#include "cuda/batch_norm_sums.hpp"
#include "cuda/cluster.hpp"

namespace fastopt::cuda {

inline constexpr int kLoadsInFlight = 8;  // vectors, or elements, that a thread loads at once

// A block's shared memory after its arrays, as counted by SmemLayout::bytes().
template <class Rule>
struct SmemArrays {
  Pair *sums, *scratch;
  Weights* last;
  Rule* finished;

  template <class Layout>
  __device__ __forceinline__ SmemArrays(const Layout& layout, void* end_of_arrays)
      : sums(static_cast<Pair*>(end_of_arrays)),
        scratch(sums + layout.sums()),
        last(reinterpret_cast<Weights*>(scratch + layout.summing_at_once())),
        finished(reinterpret_cast<Rule*>(last + kLevels)) {}
};

// The part of a layout that belongs to the calling block. `width` values are moved at once.
template <class P, bool rows, int width>
struct SmemBlock {
  using Layout = SmemLayout<P, rows>;
  // Rows and single elements rarely need more than one block, and there are no registers to spare.
  using Group = std::conditional_t<rows || width == 1, SingleBlock, Cluster>;

  const Channels& s;
  const Layout& layout;
  int64_t channel;       // the first of the block
  int first, values;     // the block's first position, and its number of values of all channels
  int64_t begin, apart;  // index of the first value, and the distance to the next plane or row

  __device__ __forceinline__ SmemBlock(const Channels& s_, const Layout& l)
      : s(s_),
        layout(l),
        channel(int64_t(int(blockIdx.x) / Group::blocks()) * Layout::channels),
        first(first_tree_block(Group::rank()) * Layout::tree_block),
        values(l.values),
        begin(channel * s.space.inner),
        apart(s.space.channels * s.space.inner) {
    if (Group::blocks() == 1) return;
    const int next = first_tree_block(Group::rank() + 1) * Layout::tree_block, count = int(s.count);
    values = (next < count ? next : count) - first;
  }

  // The index of value i, which is its offset in flat arrays. A block holds fewer than 2^31 values.
  __device__ __forceinline__ int64_t index(int i) const {
    if constexpr (rows) return begin + i / Layout::channels * apart;
    const unsigned position = unsigned(first + i), inner = unsigned(s.space.inner);
    if (inner <= 1) return begin + position * apart;
    unsigned plane = __umulhi(position, unsigned(s.inv_inner >> 32)), rest = position - plane * inner;
    if (rest >= inner) ++plane, rest -= inner;
    return begin + plane * apart + rest;
  }

  // Visits every `width`-th value, kLoadsInFlight per thread at a time: first ask(k, i) for those that
  // exist, then use(k, i, exists), which is called by all threads.
  template <class Ask, class Use>
  __device__ __forceinline__ void each(Ask&& ask, Use&& use) const {
    const int stride = int(blockDim.x) * width;
    for (int base = 0; base < values; base += kLoadsInFlight * stride) {
      const int own = base + int(threadIdx.x) * width;
#pragma unroll
      for (int k = 0; k < kLoadsInFlight; ++k)
        if (own + k * stride < values) ask(k, own + k * stride);
#pragma unroll
      for (int k = 0; k < kLoadsInFlight; ++k) use(k, own + k * stride, own + k * stride < values);
    }
  }

  // ---- sums ----

  // Index, in the block, of the channel whose values the calling thread sums.
  __device__ __forceinline__ static int summed() {
    return rows ? int(threadIdx.x) % Layout::channels : 0;
  }

  // Computes the sums of all tree blocks from start(first) and at(i), which return the first value of
  // a tree block and value i at its place in shared memory. `scratch` is scratch for the threads' sums.
  template <class Sums, class Start, class At>
  __device__ __forceinline__ void sum(Pair* sums, Pair* scratch, Start&& start, At&& at) const {
    constexpr int tree_block = Layout::tree_block * Layout::channels;
    const int lane = int(threadIdx.x) % Layout::stride;
    for (int base = 0; base < layout.summing(); base += int(blockDim.x)) {
      const int quarter = (base + int(threadIdx.x)) / Layout::stride, block = quarter / kQuarters;
      const int first = block * tree_block, from = quarter * Layout::quarter;
      const int end = from + Layout::quarter < values ? from + Layout::quarter : values;
      Sums own(start(Layout::place(first < values ? first + (rows ? lane : 0) : 0)));
      const int place = Layout::place(from) + lane, n = ceil_div(end - from - lane, Layout::stride);
#pragma unroll(rows ? 8 : 16)
      for (int k = 0; k < n; ++k) own.add(at(place + k * Layout::stride));
      if (base > 0) __syncthreads();
      add_quarters(own, scratch, layout.summing_at_once(), Layout::stride);
      if constexpr (!rows) join_lanes_of(own, lane);
      if (quarter % kQuarters != 0 || first >= values || (!rows && lane > 0)) continue;
      const int next = first + tree_block < values ? first + tree_block : values;
      sums[block * Layout::channels + (rows ? lane : 0)] = own.close((next - first) / Layout::channels);
    }
  }

  // ---- channels ----

  // Index of the channel that the calling thread finishes, or negative if none. Only the cluster's
  // first block finishes channels, using its last threads because they have the fewest values to sum.
  __device__ __forceinline__ int finished() const {
    return Group::rank() == 0 ? int(threadIdx.x) - int(blockDim.x) + Layout::channels : -1;
  }

  // Returns where the sums of those channels are stored, one after another.
  template <class Combine>
  __device__ __forceinline__ const Pair* join(Pair* sums, const Weights* last) const {
    if (Group::blocks() > 1) sums = gathered(sums);
    join_neighbors<Combine>(sums, Layout::channels, Group::rank() == 0 ? layout.all : 0,
                            Layout::tree_block, last);
    __syncthreads();
    return sums;
  }

  // Copies the rules from where they were finished. Afterwards other blocks may still read this
  // block's memory, until await_readers().
  template <class Rule>
  __device__ __forceinline__ void share(const Rule* finished, Rule (&own)[Layout::channels]) const {
    if (Group::blocks() > 1)
      meet();
    else
      __syncthreads();
#pragma unroll
    for (int k = 0; k < Layout::channels; ++k) own[k] = Group::read(finished + k, 0);
    if (Group::blocks() > 1) Group::arrive();
  }
  __device__ __forceinline__ void await_readers() const {
    if (Group::blocks() > 1) Group::wait();
  }

 private:
  __device__ __forceinline__ static void meet() {
    Group::arrive();
    Group::wait();
  }

  // The first tree block of a block of the cluster.
  __device__ __forceinline__ int first_tree_block(int block) const {
    return block * layout.all / Group::blocks();
  }

  // Gathers all tree blocks of the channel in the first block of the cluster.
  __device__ __forceinline__ Pair* gathered(Pair* sums) const {
    Pair* const all = sums + layout.tree_blocks;
    meet();
    if (Group::rank() > 0) return all;
    for (int i = int(threadIdx.x); i < layout.all; i += int(blockDim.x)) {
      const int from = ((i + 1) * Group::blocks() - 1) / layout.all;
      all[i] = Group::read(sums + i - first_tree_block(from), from);
    }
    return all;
  }
};

}  // namespace fastopt::cuda
