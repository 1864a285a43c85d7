// What BatchNorm on a device is made of: sums by blocks, then what they are to each channel, then one
// pass over the elements. Each is queued after the one before.
#pragma once

#include "cuda/channels.hpp"
#include "cuda/room.hpp"
#include "cuda/vectors.hpp"
#include "rules/channel.hpp"

namespace fastopt::cuda {

// ---- sums ----

// What a group of the tree's blocks comes to: mean and squared deviations, or the two sums of backward.
struct alignas(16) Pair {
  double first, second;
};

// A power of two of blocks that a block of threads joins, so that the groups' tree is the blocks' own.
struct Groups {
  int64_t size;   // values
  int64_t count;  // of each channel
};
Groups groups_of(const ChannelSpace& space);

// Into parts[group * channels + channel].
void queue_moments(const Place& place, const Channels& s, DType dtype, const ChannelArray& x,
                   Pair* parts);
void queue_backward_sums(const BatchNormBackward& call, const Channels& s, Pair* parts);

// ---- channels ----

// A rule's constants, an array for each of its members, as threads read them.
template <class F>
struct RuleArrays {
  F* of[4];

  template <class Rule>
  static RuleArrays cut(Cutter& cutter, int64_t channels) {
    RuleArrays arrays{};
    for (int k = 0; k < int(sizeof(Rule) / sizeof(F)); ++k) arrays.of[k] = cutter.take<F>(channels);
    return arrays;
  }
  template <class Rule>
  __device__ __forceinline__ void put(int64_t c, const Rule& rule) const {
    F own[sizeof(Rule) / sizeof(F)];
    __builtin_memcpy(own, &rule, sizeof(rule));
#pragma unroll
    for (int k = 0; k < int(sizeof(Rule) / sizeof(F)); ++k) of[k][c] = own[k];
  }
  template <class Rule>
  __device__ __forceinline__ Rule get(int64_t c) const {
    F own[sizeof(Rule) / sizeof(F)];
#pragma unroll
    for (int k = 0; k < int(sizeof(Rule) / sizeof(F)); ++k) own[k] = of[k][c];
    Rule rule;
    __builtin_memcpy(&rule, own, sizeof(rule));
    return rule;
  }
  // Those of neighbouring channels, the first a multiple of their number.
  template <class Rule, int count>
  __device__ __forceinline__ void get(int64_t c, Rule (&rules)[count]) const {
    constexpr int members = sizeof(Rule) / sizeof(F);
    F own[members][count];
#pragma unroll
    for (int k = 0; k < members; ++k) load(of[k] + c, own[k]);
#pragma unroll
    for (int i = 0; i < count; ++i) {
      F one[members];
#pragma unroll
      for (int k = 0; k < members; ++k) one[k] = own[k][i];
      __builtin_memcpy(&rules[i], one, sizeof(one));
    }
  }
};

// Parts may be null: then statistics or sums are given.
void queue_finish(const BatchMoments& call, Pair* parts);
template <class F>
void queue_finish(const BatchNormForward& call, Pair* parts, const RuleArrays<F>& rules);
template <class F>
void queue_finish(const BatchNormBackward& call, Pair* parts, const RuleArrays<F>& rules);

// ---- elements ----

template <class P>
void queue_normalize(const BatchNormForward& call, const Channels& s,
                     const RuleArrays<Compute<P>>& rules);
template <class P>
void queue_gradient(const BatchNormBackward& call, const Channels& s,
                    const RuleArrays<Compute<P>>& rules);

}  // namespace fastopt::cuda
