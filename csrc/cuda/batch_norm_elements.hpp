// BatchNorm for single elements: its formulas and the ReLU mask. Used by the element-wise passes.
#pragma once

#include "cuda/batch_norm_launches.hpp"

namespace fastopt::cuda {

inline constexpr int kElementThreads = 256;

// ---- the formulas, on adjacent elements; rule(k) is called once for each, in order ----
// Options that a call leaves out are tested once for all elements: a test for each element costs its
// instructions even if nothing is done.

// Returns the bits of the elements that ReLU lets pass, if the mask is stored.
template <class P, int count, class RuleOf>
__device__ __forceinline__ unsigned normalize(const BatchNormForward& call, RuleOf&& rule,
                                              const P (&x)[count], const P (&residual)[count],
                                              P (&y)[count]) {
  using F = Compute<P>;
  F value[count];
  unsigned bits = 0;
#pragma unroll
  for (int k = 0; k < count; ++k) value[k] = rule(k)(widen(x[k]));
  if (call.residual.data) {
#pragma unroll
    for (int k = 0; k < count; ++k) value[k] = value[k] + widen(residual[k]);
  }
  if (call.relu_mask) {
#pragma unroll
    for (int k = 0; k < count; ++k) bits |= unsigned(value[k] > kReluFloor<P>) << k;
  }
  if (call.relu) {
#pragma unroll
    for (int k = 0; k < count; ++k) value[k] = value[k] <= kReluFloor<P> ? F(0) : value[k];
  }
#pragma unroll
  for (int k = 0; k < count; ++k) y[k] = narrow<P>(value[k]);
  return bits;
}

// Zeroes the gradients of elements whose bit in `on` is not set.
template <class P, int count>
__device__ __forceinline__ void apply_relu_mask(unsigned on, P (&dy)[count]) {
#pragma unroll
  for (int k = 0; k < count; ++k) dy[k] = on >> k & 1 ? dy[k] : P{};
}

// Takes gradients to which the ReLU mask has been applied.
template <class P, int count, class RuleOf>
__device__ __forceinline__ void differentiate(const BatchNormBackward& call, RuleOf&& rule,
                                              const P (&x)[count], const P (&dy)[count],
                                              P (&dx)[count]) {
  if (call.x.data) {
#pragma unroll
    for (int k = 0; k < count; ++k) dx[k] = narrow<P>(rule(k)(widen(x[k]), widen(dy[k])));
  } else {
#pragma unroll
    for (int k = 0; k < count; ++k) dx[k] = narrow<P>(widen(dy[k]) * rule(k).scale);
  }
}

// ---- the ReLU mask ----

// The bits of the ReLU mask are indexed as elements are. Eight of them make a byte, which belongs to
// one thread or to adjacent ones. All threads of a warp must call this.
template <int count>
__device__ __forceinline__ void store_mask_bits(uint8_t* relu_mask, int64_t i, bool there,
                                                unsigned bits) {
#pragma unroll
  for (int n = count; n < 8; n *= 2)
    bits |= __shfl_down_sync(0xffffffffu, bits, unsigned(n / count)) << n;
  if (there && i % 8 == 0) relu_mask[i / 8] = uint8_t(bits);
}

// The mask bits of element i and of those that follow it in its byte. Without a mask, all are set.
__device__ __forceinline__ unsigned bits_from(const uint8_t* relu_mask, int64_t i) {
  return relu_mask ? relu_mask[i / 8] >> (i % 8) : 0xffu;
}

}  // namespace fastopt::cuda
