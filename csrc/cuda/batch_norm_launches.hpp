// The kernels of BatchNorm: sums by blocks, then the constants of each channel, then a pass over the
// elements.
#pragma once

#include "cuda/channels.hpp"
#include "cuda/device_buffer.hpp"
#include "cuda/vectors.hpp"
#include "rules/channel.hpp"

namespace fastopt::cuda {

// ---- sums ----

// The partial result of a group of tree blocks: mean and squared deviations, or the two sums of
// backward.
struct alignas(16) Pair {
  double first, second;
};

// A group is a power of two of tree blocks that one thread block combines, so that the tree over
// groups is part of the tree over blocks.
struct Groups {
  int64_t size;   // values
  int64_t count;  // per channel
};
Groups groups_of(const ChannelSpace& space);

// The sums of a group of a channel are stored in pairs[group * channels + channel].
void queue_moments(const Place& place, const Channels& s, DType dtype, const ChannelArray& x,
                   Pair* pairs);
void queue_backward_sums(const BatchNormBackward& call, const Channels& s, Pair* pairs);

// ---- channels ----

// The constants of all channels' rules: an array for each member, of the type that elements are
// computed in.
struct RuleArrays {
  void* of[4];

  template <class Rule>
  using Number = decltype(Rule::mean);
  template <class Rule>
  static constexpr int members = sizeof(Rule) / sizeof(Number<Rule>);

  template <class Rule>
  __device__ __forceinline__ void put(int64_t c, const Rule& rule) const {
    Number<Rule> own[members<Rule>];
    __builtin_memcpy(own, &rule, sizeof(rule));
#pragma unroll
    for (int k = 0; k < members<Rule>; ++k) static_cast<Number<Rule>*>(of[k])[c] = own[k];
  }

  // Loads the rules of adjacent channels. If there are several, c must be a multiple of their number.
  template <class Rule, int count>
  __device__ __forceinline__ void get(int64_t c, Rule (&rules)[count]) const {
    Number<Rule> own[members<Rule>][count];
#pragma unroll
    for (int k = 0; k < members<Rule>; ++k) load(static_cast<const Number<Rule>*>(of[k]) + c, own[k]);
#pragma unroll
    for (int i = 0; i < count; ++i) {
      Number<Rule> one[members<Rule>];
#pragma unroll
      for (int k = 0; k < members<Rule>; ++k) one[k] = own[k][i];
      __builtin_memcpy(&rules[i], one, sizeof(one));
    }
  }
  template <class Rule>
  __device__ __forceinline__ Rule get(int64_t c) const {
    Rule own[1];
    get(c, own);
    return own[0];
  }
};

// Uses the sums of all groups or, if `pairs` is null, given ones.
void queue_finish(const BatchMoments& call, Pair* pairs);
void queue_finish(const BatchNormForward& call, Pair* pairs, const RuleArrays& rules);
void queue_finish(const BatchNormBackward& call, Pair* pairs, const RuleArrays& rules);

// ---- arrays ----

// Arrays without data are ignored.
template <class... Arrays>
bool all_flat(const Channels& s, DType dtype, const Arrays&... arrays) {
  return (... && (!arrays.data || s.flat(arrays, int64_t(bytes_of(dtype)))));
}
template <class... Arrays>
bool all_aligned(const Arrays&... arrays) {
  return (... && aligned(arrays.data));
}

// ---- elements ----

// Queued directly after the channels are finished: for flat arrays, and for arrays of any strides.
void queue_flat(const BatchNormForward& call, const Channels& s, const RuleArrays& rules);
void queue_flat(const BatchNormBackward& call, const Channels& s, const RuleArrays& rules);
void queue_strided(const BatchNormForward& call, const Channels& s, const RuleArrays& rules);
void queue_strided(const BatchNormBackward& call, const Channels& s, const RuleArrays& rules);

// ---- all at once ----

// Queues one kernel that does everything, and returns true, if blocks can hold their channels.
bool queue_smem(const BatchNormForward& call, const Channels& s);
bool queue_smem(const BatchNormBackward& call, const Channels& s);

}  // namespace fastopt::cuda
