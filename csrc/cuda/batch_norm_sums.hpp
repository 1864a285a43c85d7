// The sum of a thread: its values of a tree block, at any strides, loaded ahead of their use.
#pragma once

#include "cuda/batch_norm_join.hpp"

namespace fastopt::cuda {

// Byte offset from one value of a thread to its next, for arrays with at most one outer axis:
// `advance`, plus `wrap` when the current segment of `inner` values is exhausted.
struct Strides {
  int64_t advance, wrap;
};

struct Reduction {
  Channels s;
  ChannelArray x, dy;
  const uint8_t* relu_mask;
  const double* mean;
  bool even;          // whether Strides describe the arrays completely
  int64_t remainder;  // of the stride, in its last segment
  Strides x_strides, dy_strides, index_strides;
  int64_t group;       // values
  int channels_a_row;  // per row of threads
  unsigned stripes;    // of channels_a_row channels
  Pair* pairs;
};

// The position of a thread's next value.
struct Cursor {
  const char *x, *dy;
  int64_t index;
  int64_t left;  // values left in the segment, including this one

  __device__ __forceinline__ Cursor(const Reduction& r, const ChannelPos& at, int64_t itemsize) {
    x = r.x.data + offset_of(r.s, r.x, at, itemsize);
    dy = r.dy.data ? r.dy.data + offset_of(r.s, r.dy, at, itemsize) : nullptr;
    index = r.relu_mask ? linear_index(r.s, at) : 0;
    left = r.s.space.inner - divide(at.position, r.s.space.inner, r.s.inv_inner).remainder;
  }
  __device__ __forceinline__ void wrap(const Reduction& r) {
    if (left > 0) return;
    left += r.s.space.inner;
    x += r.x_strides.wrap;
    dy += r.dy_strides.wrap;
    index += r.index_strides.wrap;
  }
  // In rows layout a segment has one value and never wraps.
  template <bool rows>
  __device__ __forceinline__ void next(const Reduction& r) {
    x += r.x_strides.advance;
    dy += r.dy_strides.advance;
    index += r.index_strides.advance;
    if constexpr (rows) return;
    left -= r.remainder;
    wrap(r);
  }
  __device__ __forceinline__ void skip(const Reduction& r, int64_t values, int64_t itemsize) {
    left -= values;
    x += values * itemsize;
    dy += values * itemsize;
    index += values;
    wrap(r);
  }
};

// ---- what is summed: two sums over values of type P ----

template <class P>
struct MomentSums {
  using Storage = P;
  using Combine = JoinMoments;
  struct Value {
    P x;
  };
  // Number of values loaded ahead if there are many threads, and the factor by which it grows if there
  // are few.
  static constexpr int few = sizeof(P) == 8 ? 8 : 16, times = 4;

  double pivot, first = 0.0, second = 0.0;

  // The pivot as it is stored, so that it is not converted, and waited for, before the values are
  // requested.
  using About = P;
  __device__ __forceinline__ static About about(const Reduction& r, const ChannelPos& first_of_block) {
    return element<P>(r.s, r.x, first_of_block);
  }
  __device__ __forceinline__ explicit MomentSums(About stored) : pivot(widen(stored)) {}
  __device__ __forceinline__ static Value read(const Reduction&, const Cursor& at, int k) {
    return {reinterpret_cast<const P*>(at.x)[k]};
  }
  __device__ __forceinline__ void add(const Value& v) {
    add_moment(double(widen(v.x)), pivot, first, second);
  }
  __device__ __forceinline__ Pair close(int64_t count) const {
    const Moments m = moments_about(pivot, first, second, double(count));
    return {m.mean, m.m2};
  }
};

// `masked`: a ReLU mask selects the gradients. Testing for a mask at each value took about ten
// instructions a value.
template <class P, bool masked>
struct GradientSums {
  using Storage = P;
  using Combine = JoinSums;
  using F = Compute<P>;
  struct Value {
    P x, dy;
    bool on;
  };
  static constexpr int few = sizeof(P) == 8 || masked ? 4 : 8;
  static constexpr int times = masked && sizeof(P) == 2 ? 2 : 4;

  F mean;
  double first = 0.0, second = 0.0;

  using About = double;
  __device__ __forceinline__ static About about(const Reduction& r, const ChannelPos& block) {
    return r.mean[block.channel];
  }
  __device__ __forceinline__ explicit GradientSums(About stored) : mean(F(stored)) {}
  __device__ __forceinline__ static Value read(const Reduction& r, const Cursor& at, int k) {
    const int64_t index = at.index + k;
    return {reinterpret_cast<const P*>(at.x)[k], reinterpret_cast<const P*>(at.dy)[k],
            !masked || (r.relu_mask[index >> 3] >> (index & 7) & 1)};
  }
  __device__ __forceinline__ void add(const Value& v) {
    add_gradient<F>(double(v.on ? widen(v.dy) : F(0)), double(widen(v.x) - mean), first, second);
  }
  __device__ __forceinline__ Pair close(int64_t) const { return {first, second}; }
};

// Adds the four quarters of each block in order; each quarter is held by `lanes` adjacent threads, and
// the threads of quarter 0 receive the sums. Must be called by all threads; the first `places` of them
// use one slot of `scratch` each.
template <class Sums>
__device__ __forceinline__ void add_quarters(Sums& sums, Pair* scratch, int places, int lanes) {
  const bool there = int(threadIdx.x) < places;
  Pair* const own = scratch + threadIdx.x;
  if (there) *own = {sums.first, sums.second};
  __syncthreads();
  if (!there || int(threadIdx.x) / lanes % kQuarters != 0) return;
#pragma unroll
  for (int q = 1; q < kQuarters; ++q) {
    sums.first = Sum::join(sums.first, own[q * lanes].first);
    sums.second = Sum::join(sums.second, own[q * lanes].second);
  }
}

// Combines the lanes of a plane's block, adjacent threads of a warp, in the first of them.
template <class Sums>
__device__ __forceinline__ void join_lanes_of(Sums& sums, int lane) {
#pragma unroll
  for (int half = kLanes / 2; half > 0; half /= 2) {
    const double first = __shfl_down_sync(0xffffffffu, sums.first, unsigned(half), kLanes);
    const double second = __shfl_down_sync(0xffffffffu, sums.second, unsigned(half), kLanes);
    if (lane < half) {
      sums.first = Sum::join(sums.first, first);
      sums.second = Sum::join(sums.second, second);
    }
  }
}

// ---- how a thread sums its values ----

// A thread sums a quarter of a tree block or, in rows layout, all four in order; `ahead` of its values
// are loaded at a time, in parts.
inline constexpr int kParts = 4;
template <class S, int stride_, int ahead_, bool all_quarters>
struct ThreadSum {
  using Sums = S;
  using Value = typename Sums::Value;
  static constexpr int stride = stride_, ahead = ahead_, part = ahead / kParts;
  static constexpr int quarter = all_quarters ? kRowBlock / kQuarters : 0;
  static constexpr auto itemsize = int64_t(sizeof(typename Sums::Storage));
  using Part = Value[part];
  static_assert(!all_quarters || stride == 1);

  Sums sums;
  Pair before{0.0, 0.0};
  int taken = 0;

  __device__ __forceinline__ explicit ThreadSum(typename Sums::About about) : sums(about) {}

  // Loads a part: every stride-th value, `n` of them or (`whole`) all.
  template <bool whole>
  __device__ __forceinline__ static void ask(const Reduction& r, Cursor& cursor, int n, Part& to) {
    if (whole && stride > 1 && part > 1 && cursor.left > (part - 1) * stride) {  // all in one segment
#pragma unroll
      for (int k = 0; k < part; ++k) to[k] = Sums::read(r, cursor, k * stride);
      return cursor.skip(r, part * stride, itemsize);
    }
#pragma unroll
    for (int k = 0; k < part; ++k) {
      to[k] = whole || k < n ? Sums::read(r, cursor, 0) : Value{};
      cursor.template next<stride == 1>(r);
    }
  }

  __device__ __forceinline__ void add(const Part& from, int n) {
#pragma unroll
    for (int k = 0; k < part; ++k)
      if (k < n) sums.add(from[k]);
    close_quarter(part);
  }
  __device__ __forceinline__ void close_quarter(int more) {
    taken += more;
    if (quarter > 0 && taken % quarter == 0) fold();
  }
  __device__ __forceinline__ void fold() {
    before = {Sum::join(before.first, sums.first), Sum::join(before.second, sums.second)};
    sums.first = sums.second = 0.0;
  }
  __device__ __forceinline__ Sums total() {
    if (quarter == 0) return sums;
    fold();
    sums.first = before.first;
    sums.second = before.second;
    return sums;
  }
};

// Processes full batches of `ahead` values. As soon as the oldest part has been accumulated, its
// registers are reused to issue the next loads, so loads are always in flight.
template <class Thread>
__device__ __forceinline__ Thread sum_prefetched(const Reduction& r, const ChannelPos& block,
                                                 Cursor& cursor, int& left) {
  typename Thread::Part own[kParts];
#pragma unroll
  for (int p = 0; p < kParts; ++p) Thread::template ask<true>(r, cursor, Thread::part, own[p]);
  // requested last, because the next instructions wait for it
  Thread thread(Thread::Sums::about(r, block));
  for (left -= Thread::ahead; left >= Thread::ahead; left -= Thread::ahead) {
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      thread.add(own[p], Thread::part);
      Thread::template ask<true>(r, cursor, Thread::part, own[p]);
    }
  }
#pragma unroll
  for (int p = 0; p < kParts; ++p) thread.add(own[p], Thread::part);
  return thread;
}

// Sums every stride-th value from `at` up to position `end`, of a tree block that begins at `block`.
template <class Thread>
__device__ __forceinline__ typename Thread::Sums sum_range(const Reduction& r, const ChannelPos& block,
                                                           ChannelPos at, int64_t end) {
  if (!r.even) {
    Thread thread(Thread::Sums::about(r, block));
    for (; at.position < end; at.position += Thread::stride) {
      thread.sums.add(Thread::Sums::read(r, Cursor(r, at, Thread::itemsize), 0));
      thread.close_quarter(1);
    }
    return thread.total();
  }
  int left = at.position < end ? int(ceil_div(end - at.position, Thread::stride)) : 0;
  Cursor cursor(r, at, Thread::itemsize);
  Thread thread = left < Thread::ahead ? Thread(Thread::Sums::about(r, block))
                                       : sum_prefetched<Thread>(r, block, cursor, left);
#pragma unroll 1
  for (; left > 0; left -= Thread::part) {
    typename Thread::Part own;
    Thread::template ask<false>(r, cursor, left, own);
    thread.add(own, left);
  }
  return thread.total();
}

}  // namespace fastopt::cuda
