// What blocks do with what they hold of their channels: sum it in the tree's order, and tell each
// other.
#pragma once

#include "cuda/batch_norm_deal.hpp"
#include "cuda/batch_norm_sums.hpp"
#include "cuda/cluster.hpp"

namespace fastopt::cuda {

inline constexpr int kTaken = 8;  // vectors, or elements, that a thread asks for at once

// The calling block's part of a deal. `width` values are moved at once.
template <class P, bool rows, int width>
struct Held {
  using D = Deal<P, rows>;
  // Of single elements there is seldom more than a block holds, and no register to spare.
  using Group = std::conditional_t<width == 1, Alone, Cluster>;
  static constexpr int rules = rows ? width : 1;  // of the values that a thread moves

  const Channels& s;
  const D& deal;
  int64_t channel;       // the first of the cluster
  int first, values;     // the block's first position, and how many it has of all channels
  int64_t begin, apart;  // where the first value lies, and how far it is to the next plane or row

  __device__ __forceinline__ Held(const Channels& s_, const D& d)
      : s(s_),
        deal(d),
        channel(int64_t(int(blockIdx.x) / Group::blocks()) << d.bits()),
        first(first_leaf(Group::rank()) * D::leaf),
        values(d.values),
        begin(channel * s.space.inner),
        apart(s.space.channels * s.space.inner) {
    if (Group::blocks() > 1) {
      const int next = first_leaf(Group::rank() + 1) * D::leaf, count = int(s.count);
      values = ((next < count ? next : count) - first) << d.bits();
    }
    if (rows) begin += first * apart;
  }

  // The number of value i, and so where it lies in flat arrays. Fewer than 2^31 are held.
  __device__ __forceinline__ int64_t number(int i) const {
    if constexpr (rows) return begin + (i >> deal.bits()) * apart + (i & (deal.channels() - 1));
    const unsigned position = unsigned(first + i), inner = unsigned(s.space.inner);
    if (inner <= 1) return begin + position * apart;
    unsigned plane = __umulhi(position, unsigned(s.by_inner >> 32)), rest = position - plane * inner;
    if (rest >= inner) ++plane, rest -= inner;
    return begin + plane * apart + rest;
  }

  // Every `width`-th value, kTaken for each thread at a time: first ask(k, i) for those that are there,
  // then use(k, i, there) by all threads.
  template <class Ask, class Use>
  __device__ __forceinline__ void each(Ask&& ask, Use&& use) const {
    const int step = int(blockDim.x) * width;
    for (int base = 0; base < values; base += kTaken * step) {
      const int own = base + int(threadIdx.x) * width;
#pragma unroll
      for (int k = 0; k < kTaken; ++k)
        if (own + k * step < values) ask(k, own + k * step);
#pragma unroll
      for (int k = 0; k < kTaken; ++k) use(k, own + k * step, own + k * step < values);
    }
  }

  // ---- sums ----

  // The channel of the cluster whose values a thread sums.
  __device__ __forceinline__ int summed() const {
    return rows ? int(threadIdx.x) & (deal.channels() - 1) : 0;
  }

  // From start(first) and at(i), the first value of a leaf and value i where they stand, come the sums
  // of all leaves.
  template <class Sums, class Start, class At>
  __device__ __forceinline__ void sum(Pair* sums, Start&& start, At&& at) const {
    const int step = 1 << deal.step(), leaf = D::leaf << deal.bits();
    const int threads = (deal.leaf_of(values - 1) + 1) << deal.step();
    for (int i = int(threadIdx.x); (i & ~31) < threads; i += int(blockDim.x)) {  // by whole warps
      const int lane = i & (step - 1), turn = i >> deal.step(), from = turn * leaf;
      const int end = from + leaf < values ? from + leaf : values;
      Sums own(start(deal.place(from < values ? from + (rows ? lane : 0) : 0)));
      const int place = deal.place(from + lane), n = (end - from - lane + step - 1) >> deal.step();
#pragma unroll 16
      for (int k = 0; k < n; ++k) own.add(at(place + k * step));
      if constexpr (!rows) join_lanes_of(own, lane);
      if (end > from && (rows || lane == 0))
        sums[(turn << deal.bits()) + (rows ? lane : 0)] = own.close((end - from) >> deal.bits());
    }
  }

  // ---- channels ----

  // How many this block finishes, and which of the cluster's is the first: with a thread for each.
  __device__ __forceinline__ int finishes() const {
    return first_finished() < deal.channels() ? 1 << deal.finished : 0;
  }
  __device__ __forceinline__ int first_finished() const { return Group::rank() << deal.finished; }

  // The sums of those come to stand one after another, where this says.
  template <class How>
  __device__ __forceinline__ const Pair* join(Pair* sums) const {
    if (Group::blocks() > 1) sums = gathered(sums);
    const int n = deal.all * finishes();
    for (int step = 1; step < deal.all; step *= 2) {
      __syncthreads();
      for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) {
        const int a = i >> deal.finished, b = a + step;
        if (a % (2 * step) != 0 || b >= deal.all) continue;
        Pair &own = sums[i], &other = sums[i + (step << deal.finished)];
        How::join(own.first, own.second, other.first, other.second,
                  values_in(a, step, D::leaf, s.count), values_in(b, step, D::leaf, s.count));
      }
    }
    __syncthreads();
    return sums;
  }

  // The rules of the values that a thread moves, of those that each block has finished: its own stand
  // at `finished`, behind which there is room for all. Afterwards others may still read this block's
  // memory, until await_readers().
  template <class Rule>
  __device__ __forceinline__ void share(Rule* finished, Rule (&own)[rules]) const {
    const Rule* all = finished;
    if (Group::blocks() > 1) {
      Rule* const copies = finished + (1 << deal.finished);
      meet();
      const int c = int(threadIdx.x), from = c >> deal.finished;
      if (c < deal.channels()) copies[c] = Group::read(finished + c - (from << deal.finished), from);
      Group::arrive();
      all = copies;
    }
    __syncthreads();
    const int column = int(threadIdx.x) * width & (deal.channels() - 1);
#pragma unroll
    for (int k = 0; k < rules; ++k) own[k] = all[rows ? column + k : 0];
  }
  __device__ __forceinline__ void await_readers() const {
    if (Group::blocks() > 1) Group::wait();
  }

 private:
  __device__ __forceinline__ void meet() const {
    Group::arrive();
    Group::wait();
  }

  // The first leaf of a block of the cluster.
  __device__ __forceinline__ int first_leaf(int block) const {
    return block * deal.all / Group::blocks();
  }

  // All leaves of the channels that this block finishes.
  __device__ __forceinline__ Pair* gathered(Pair* sums) const {
    Pair* const all = sums + deal.sums();
    meet();
    const int n = deal.all * finishes(), c = first_finished();
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) {
      const int leaf = i >> deal.finished, from = ((leaf + 1) * Group::blocks() - 1) / deal.all;
      const int place = (leaf - first_leaf(from)) * deal.channels() + c;
      all[i] = Group::read(sums + place + (i & ((1 << deal.finished) - 1)), from);
    }
    return all;
  }
};

}  // namespace fastopt::cuda
