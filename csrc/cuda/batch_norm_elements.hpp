// An element of BatchNorm: its formulas, and ReLU's bits. For the passes over all elements.
#pragma once

#include "cuda/batch_norm_launches.hpp"

namespace fastopt::cuda {

inline constexpr int kElementThreads = 256;

// ---- the formulas, on neighboring elements; rule(k) is asked once for each, in turn ----
// What a call leaves out is asked once for all of them: asked for each, it took its instructions
// anyway.

// Gives bits of those that ReLU lets pass, if they are to be kept.
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

// `on`: bits of those whose gradient passes.
template <class P, int count>
__device__ __forceinline__ void apply_relu_mask(unsigned on, P (&dy)[count]) {
#pragma unroll
  for (int k = 0; k < count; ++k) dy[k] = on >> k & 1 ? dy[k] : P{};
}

// Of gradients that ReLU has let pass.
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

// ---- ReLU's bits ----

// Bits of ReLU are numbered as elements are. Eight of them make a byte, of one thread or of
// neighboring ones, which all call this.
template <int count>
__device__ __forceinline__ void store_mask_bits(uint8_t* relu_mask, int64_t i, bool there,
                                                unsigned bits) {
#pragma unroll
  for (int n = count; n < 8; n *= 2)
    bits |= __shfl_down_sync(0xffffffffu, bits, unsigned(n / count)) << n;
  if (there && i % 8 == 0) relu_mask[i / 8] = uint8_t(bits);
}

// The bit of element i and those that follow it in its byte; without ReLU all pass.
__device__ __forceinline__ unsigned bits_from(const uint8_t* relu_mask, int64_t i) {
  return relu_mask ? relu_mask[i / 8] >> (i % 8) : 0xffu;
}

}  // namespace fastopt::cuda
