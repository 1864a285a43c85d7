// From the sums of groups to what a channel's elements are computed with: a kernel of its own, or the
// first blocks of one whose others wait for that.
#pragma once

#include "cuda/batch_norm_passes.hpp"

namespace fastopt::cuda {

inline constexpr int kFinishers = 256;  // threads of a block

// ---- joining groups ----

// A whole subtree for each thread and then those: a power of two to each keeps the tree as it is. The
// first thread of a channel has the result.
template <class How>
__device__ __forceinline__ Pair join_channel(const Finishing& t, int64_t c) {
  __shared__ Pair joined[kFinishers];
  const int channels = kFinishers / t.threads, turn = int(threadIdx.x) / channels;
  int64_t own = 1;
  while (own * t.threads < t.groups.count) own *= 2;
  const int64_t size = own * t.groups.size, begin = turn * size;
  Pair& mine = joined[threadIdx.x];
  mine = {0.0, 0.0};
  if (c < t.channels && begin < t.count) {
    Pair* const parts = t.parts.pairs + turn * own * t.channels + c;
    const int64_t rest = t.count - begin;
    join_blocks<How>(&parts->first, &parts->second, 2 * t.channels, 1, t.groups.size,
                     rest < size ? rest : size);
    mine = *parts;
  }
  for (int step = 1; step < t.threads; step *= 2) {
    __syncthreads();
    if (turn % (2 * step) != 0 || (turn + step) * size >= t.count) continue;
    const Pair& other = joined[threadIdx.x + step * channels];
    How::join(mine.first, mine.second, other.first, other.second, values_in(turn, step, size, t.count),
              values_in(turn + step, step, size, t.count));
  }
  return mine;
}

template <class Finish>
__device__ __forceinline__ void finish_channels(const Finishing& t, const Finish& finish) {
  const int channels = kFinishers / t.threads;
  const int64_t c = int64_t(blockIdx.x) * channels + threadIdx.x % channels;
  const Pair sums = join_channel<typename Finish::How>(t, c);
  if (int(threadIdx.x) < channels && c < t.channels) finish(c, sums, double(t.count));
}

// ---- what follows for a channel ----

struct FinishMoments {
  using How = JoinMoments;
  const BatchMoments& call;
  const RuleArrays& none;

  __device__ __forceinline__ void operator()(int64_t c, const Pair& m, double) const {
    call.out.mean[c] = m.first;
    call.out.m2[c] = m.second;
  }
};

template <class F>
struct FinishForward {
  using How = JoinMoments;
  const BatchNormForward& call;
  const RuleArrays& rules;

  __device__ __forceinline__ void operator()(int64_t c, const Pair& m, double count) const {
    if (call.given.mean)
      finish_forward(call, c, {call.given.mean[c], call.given.m2[c]}, call.given.count);
    else
      finish_forward(call, c, {m.first, m.second}, count);
    rules.put(c, normalize_of<F>(call, c));
  }
};

template <class F>
struct FinishBackward {
  using How = JoinSums;
  const BatchNormBackward& call;
  const RuleArrays& rules;

  __device__ __forceinline__ void operator()(int64_t c, const Pair& sums, double) const {
    if (!call.given) {
      call.sums.dy[c] = sums.first;
      call.sums.dy_centred[c] = sums.second;
    }
    finish_backward<F>(call, c);
    rules.put(c, gradient_of<F>(call, c));
  }
};

// ---- ahead of others ----

// The first blocks of a grid finish the channels, and all others wait for them where they first need a
// rule, by when they have asked for their elements: a launch less, and its time is hidden. Blocks begin
// in their order (as scans with look-back count on, too), so that none waits for one yet to begin.
template <class Finish>
__device__ __forceinline__ void finish_first(const Finishing& t, const Finish& finish) {
  finish_channels(t, finish);
  __syncthreads();
  if (threadIdx.x != 0) return;
  __threadfence();
  atomicInc(t.parts.finished, t.blocks);
}

__device__ __forceinline__ void await_finish(const Finishing& t) {
  if (t.blocks == 0) return;  // an earlier kernel did it
  const volatile unsigned* const finished = t.parts.finished;
  while (*finished < t.blocks) __nanosleep(40);
  __threadfence();
}

}  // namespace fastopt::cuda
