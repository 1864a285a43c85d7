// What blocks do with what they hold of their channels: sum it in the tree's order, and tell each
// other.
#pragma once

#include "cuda/batch_norm_deal.hpp"
#include "cuda/batch_norm_sums.hpp"
#include "cuda/cluster.hpp"

namespace fastopt::cuda {

inline constexpr int kTaken = 8;  // vectors, or elements, that a thread asks for at once

// What a block has in shared memory after its arrays, as Deal::bytes() counts it.
template <class Rule>
struct Numbers {
  Pair *sums, *room;
  Weights* last;
  Rule* finished;

  template <class D>
  __device__ __forceinline__ Numbers(const D& deal, void* end_of_arrays)
      : sums(static_cast<Pair*>(end_of_arrays)),
        room(sums + deal.sums()),
        last(reinterpret_cast<Weights*>(room + deal.apart())),
        finished(reinterpret_cast<Rule*>(last + kLevels)) {}
};

// The calling block's part of a deal. `width` values are moved at once.
template <class P, bool rows, int width>
struct Held {
  using D = Deal<P, rows>;
  // Of rows and single elements there is seldom more than a block holds, and no register to spare.
  using Group = std::conditional_t<rows || width == 1, Alone, Cluster>;

  const Channels& s;
  const D& deal;
  int64_t channel;       // the first
  int first, values;     // the block's first position, and how many it has of all channels
  int64_t begin, apart;  // where the first value lies, and how far it is to the next plane or row

  __device__ __forceinline__ Held(const Channels& s_, const D& d)
      : s(s_),
        deal(d),
        channel(int64_t(int(blockIdx.x) / Group::blocks()) * D::channels),
        first(first_leaf(Group::rank()) * D::leaf),
        values(d.values),
        begin(channel * s.space.inner),
        apart(s.space.channels * s.space.inner) {
    if (Group::blocks() == 1) return;
    const int next = first_leaf(Group::rank() + 1) * D::leaf, count = int(s.count);
    values = (next < count ? next : count) - first;
  }

  // The number of value i, and so where it lies in flat arrays. Fewer than 2^31 are held.
  __device__ __forceinline__ int64_t number(int i) const {
    if constexpr (rows) return begin + i / D::channels * apart;
    const unsigned position = unsigned(first + i), inner = unsigned(s.space.inner);
    if (inner <= 1) return begin + position * apart;
    unsigned plane = __umulhi(position, unsigned(s.inv_inner >> 32)), rest = position - plane * inner;
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

  // The channel whose values a thread sums, from the first.
  __device__ __forceinline__ static int summed() { return rows ? int(threadIdx.x) % D::channels : 0; }

  // From start(first) and at(i), the first value of a leaf and value i where they stand, come the sums
  // of all leaves; `room` is for those of threads.
  template <class Sums, class Start, class At>
  __device__ __forceinline__ void sum(Pair* sums, Pair* room, Start&& start, At&& at) const {
    constexpr int leaf = D::leaf * D::channels;
    const int lane = int(threadIdx.x) % D::step;
    for (int base = 0; base < deal.summing(); base += int(blockDim.x)) {
      const int quarter = (base + int(threadIdx.x)) / D::step, turn = quarter / kQuarters;
      const int first = turn * leaf, from = quarter * D::quarter;
      const int end = from + D::quarter < values ? from + D::quarter : values;
      Sums own(start(D::place(first < values ? first + (rows ? lane : 0) : 0)));
      const int place = D::place(from) + lane, n = ceil_div(end - from - lane, D::step);
#pragma unroll(rows ? 8 : 16)
      for (int k = 0; k < n; ++k) own.add(at(place + k * D::step));
      if (base > 0) __syncthreads();
      add_quarters(own, room, deal.apart(), D::step);
      if constexpr (!rows) join_lanes_of(own, lane);
      if (quarter % kQuarters != 0 || first >= values || (!rows && lane > 0)) continue;
      const int next = first + leaf < values ? first + leaf : values;
      sums[turn * D::channels + (rows ? lane : 0)] = own.close((next - first) / D::channels);
    }
  }

  // ---- channels ----

  // Which of the block's channels the calling thread finishes, or a negative number. Of a cluster's
  // blocks, the first does; of its threads the last, which have the fewest values to sum.
  __device__ __forceinline__ int finished() const {
    return Group::rank() == 0 ? int(threadIdx.x) - int(blockDim.x) + D::channels : -1;
  }

  // The sums of those come to stand one after another, where this says.
  template <class Combine>
  __device__ __forceinline__ const Pair* join(Pair* sums, const Weights* last) const {
    if (Group::blocks() > 1) sums = gathered(sums);
    join_neighbors<Combine>(sums, D::channels, Group::rank() == 0 ? deal.all : 0, D::leaf, last);
    __syncthreads();
    return sums;
  }

  // The rules that stand where they were finished. Afterwards others may still read this block's
  // memory, until await_readers().
  template <class Rule>
  __device__ __forceinline__ void share(const Rule* finished, Rule (&own)[D::channels]) const {
    if (Group::blocks() > 1)
      meet();
    else
      __syncthreads();
#pragma unroll
    for (int k = 0; k < D::channels; ++k) own[k] = Group::read(finished + k, 0);
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

  // The first leaf of a block of the cluster.
  __device__ __forceinline__ int first_leaf(int block) const {
    return block * deal.all / Group::blocks();
  }

  // All leaves of the channel, in the first block.
  __device__ __forceinline__ Pair* gathered(Pair* sums) const {
    Pair* const all = sums + deal.leaves;
    meet();
    if (Group::rank() > 0) return all;
    for (int i = int(threadIdx.x); i < deal.all; i += int(blockDim.x)) {
      const int from = ((i + 1) * Group::blocks() - 1) / deal.all;
      all[i] = Group::read(sums + i - first_leaf(from), from);
    }
    return all;
  }
};

}  // namespace fastopt::cuda
