// From the sums of groups to what a channel's elements are computed with: a kernel of its own, or the
// first blocks of one whose others wait for that.
#pragma once

#include "cuda/batch_norm_passes.hpp"
#include "cuda/signal.hpp"

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

// What a channel brings along is asked for before the sums are joined.
template <class Finish>
__device__ __forceinline__ void finish_channels(const Finishing& t, const Finish& finish,
                                                const RuleArrays& rules) {
  const int channels = kFinishers / t.threads;
  const int64_t c = int64_t(blockIdx.x) * channels + threadIdx.x % channels;
  const bool first = int(threadIdx.x) < channels && c < t.channels;
  typename Finish::Inputs inputs{};
  if (first) inputs = finish.inputs(c);
  const Pair sums = join_channel<typename Finish::How>(t, c);
  if (!first) return;
  if constexpr (requires { typename Finish::Rule; })
    rules.put(c, finish(c, inputs, sums, double(t.count)));
  else
    finish(c, inputs, sums, double(t.count));
}

// ---- what follows for a channel ----

struct FinishMoments {
  using How = JoinMoments;
  struct Inputs {};
  const BatchMoments& call;

  __device__ __forceinline__ Inputs inputs(int64_t) const { return {}; }
  __device__ __forceinline__ void operator()(int64_t c, Inputs, const Pair& m, double) const {
    call.out.mean[c] = m.first;
    call.out.m2[c] = m.second;
  }
};

template <class F>
struct FinishForward {
  using How = JoinMoments;
  using Inputs = ForwardInputs;
  using Rule = Normalize<F>;
  const BatchNormForward& call;

  __device__ __forceinline__ Inputs inputs(int64_t c) const { return inputs_of(call, c); }
  __device__ __forceinline__ Rule operator()(int64_t c, const Inputs& in, const Pair& sums,
                                             double count) const {
    Moments m{sums.first, sums.second};
    if (const Statistics& given = call.given; given.mean) {
      m = {given.mean[c], given.m2[c]};
      count = given.count;
    }
    return normalize_of<F>(finish_forward(call, c, in, m, count));
  }
};

template <class F>
struct FinishBackward {
  using How = JoinSums;
  using Inputs = BackwardInputs;
  using Rule = NormalizeBackward<F>;
  const BatchNormBackward& call;

  __device__ __forceinline__ Inputs inputs(int64_t c) const { return inputs_of(call, c); }
  __device__ __forceinline__ Rule operator()(int64_t c, const Inputs& in, const Pair& sums,
                                             double) const {
    const ChannelSums own = call.given ? sums_of(call, c) : ChannelSums{sums.first, sums.second};
    return gradient_of<F>(call, in, finish_backward<F>(call, c, in, own));
  }
};

// ---- ahead of others ----

// The first blocks of a grid finish the channels, and all others wait for them where they first need a
// rule, by when they have asked for their elements: a launch less, and its time is hidden. Blocks begin
// in their order (as scans with look-back count on, too), so that none waits for one yet to begin.
template <class Finish>
__device__ __forceinline__ void finish_first(const Finishing& t, const Finish& finish,
                                             const RuleArrays& rules) {
  finish_channels(t, finish, rules);
  __syncthreads();
  if (threadIdx.x == 0) raise(t.parts.finished);
}

// All threads of a block. One asks for the others: a fence in each cost more than the wait.
__device__ __forceinline__ void await_finish(const Finishing& t) {
  if (t.blocks == 0) return;  // an earlier kernel did it
  if (threadIdx.x == 0)
    while (raised(t.parts.finished) < t.blocks) __nanosleep(20);
  __syncthreads();
}

}  // namespace fastopt::cuda
