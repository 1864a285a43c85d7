// How threads address arrays by channel.
#pragma once

#include "core/batch_norm.hpp"
#include "cuda/launch.hpp"
#include "rules/divide.hpp"

namespace fastopt::cuda {

// A channel space with the reciprocals of its sizes, and an index for every element: its place in
// memory if x is dense. The index depends only on x and on positions (the values of a channel have
// positions 0 ... count in memory order), so that forward and backward agree on it whatever the
// strides of the other arrays.
struct Channels {
  ChannelSpace space;
  int64_t count, elements;  // values of one channel, and of all
  int64_t plane;            // consecutive indices of a channel; 1 for rows
  uint64_t inv_channels, inv_inner, inv_plane;
  uint64_t inv_shape[kMaxDims];

  Channels(const ChannelSpace& s, const ChannelArray& x, int64_t itemsize)
      : space(s), count(s.count()), elements(s.channels * count), plane(1) {
    if (!s.rows) {
      const int64_t apart = (x.channel < 0 ? -x.channel : x.channel) / itemsize;
      plane = apart > 0 && count % apart == 0 ? apart : count;
    }
    inv_channels = reciprocal_of(s.channels);
    inv_inner = reciprocal_of(s.inner);
    inv_plane = reciprocal_of(plane);
    for (int d = 0; d < s.ndim; ++d) inv_shape[d] = reciprocal_of(s.shape[d]);
  }

  // Whether the elements of an array are in index order, without gaps.
  bool flat(const ChannelArray& a, int64_t itemsize) const {
    const int64_t run = space.rows ? 1 : space.inner;
    return (space.channels == 1 || a.channel == run * itemsize) &&
           (space.outer <= 1 || (space.ndim == 1 && a.stride[0] == space.channels * run * itemsize)) &&
           (space.rows || space.channels == 1 || plane == run);
  }
};

// ---- elements, channels and positions ----

struct ChannelPos {
  int64_t channel, position;
};

__device__ __forceinline__ ChannelPos position_of(const Channels& s, int64_t index) {
  const DivMod in_plane = divide(index, s.plane, s.inv_plane);
  const DivMod planes = divide(in_plane.quotient, s.space.channels, s.inv_channels);
  return {planes.remainder, planes.quotient * s.plane + in_plane.remainder};
}

__device__ __forceinline__ int64_t linear_index(const Channels& s, const ChannelPos& at) {
  const DivMod p = divide(at.position, s.plane, s.inv_plane);
  return (p.quotient * s.space.channels + at.channel) * s.plane + p.remainder;
}

// Byte offset of an element.
__device__ __forceinline__ int64_t offset_of(const Channels& s, const ChannelArray& a,
                                             const ChannelPos& at, int64_t itemsize) {
  const DivMod p = divide(at.position, s.space.inner, s.inv_inner);
  int64_t offset = at.channel * a.channel + p.remainder * itemsize, outer = p.quotient;
  for (int d = s.space.ndim - 1; d > 0; --d) {
    const DivMod at_axis = divide(outer, s.space.shape[d], s.inv_shape[d]);
    offset += at_axis.remainder * a.stride[d];
    outer = at_axis.quotient;
  }
  return s.space.ndim > 0 ? offset + outer * a.stride[0] : offset;
}

template <class P>
__device__ __forceinline__ P element(const Channels& s, const ChannelArray& a, const ChannelPos& at) {
  return *reinterpret_cast<const P*>(a.data + offset_of(s, a, at, sizeof(P)));
}

}  // namespace fastopt::cuda
