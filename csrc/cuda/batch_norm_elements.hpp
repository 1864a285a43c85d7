// An element of BatchNorm: its formulas, and ReLU's bits. For the passes over all elements.
#pragma once

#include "cuda/batch_norm_passes.hpp"

namespace fastopt::cuda {

inline constexpr int kElementThreads = 256;

// The part of a call that such a pass reads.
struct Forward {
  Channels s;
  ChannelArray x, residual, y;
  uint8_t* kept;
  bool relu;
};

struct Backward {
  Channels s;
  ChannelArray x, dy, dx, dresidual;  // without x: the statistics are constants
  const uint8_t* kept;
};

// ---- the formulas, on an element ----

template <class P>
struct Normalized {
  P y;
  bool on;
};

template <class P>
__device__ __forceinline__ Normalized<P> normalized(const Normalize<Compute<P>>& rule, P x, bool adds,
                                                    P residual, bool relu) {
  using F = Compute<P>;
  F value = rule(widen(x));
  if (adds) value = value + widen(residual);
  const bool on = value > kReluFloor<P>;
  if (relu) value = value <= kReluFloor<P> ? F(0) : value;
  return {narrow<P>(value), on};
}

template <class P>
struct Gradients {
  P dx, dresidual;
};

template <class P>
__device__ __forceinline__ Gradients<P> gradients(const NormalizeBackward<Compute<P>>& rule,
                                                  bool with_x, P x, P dy, bool on) {
  using F = Compute<P>;
  const F passed = on ? widen(dy) : F(0);
  return {narrow<P>(with_x ? rule(widen(x), passed) : passed * rule.scale), narrow<P>(passed)};
}

inline Forward forward_of(const BatchNormForward& call, const Channels& s) {
  return {s, call.x, call.residual, call.y, call.kept, call.relu};
}

inline Backward backward_of(const BatchNormBackward& call, const Channels& s) {
  Backward backward{s, call.x, call.dy, call.dx, call.dresidual, call.kept};
  if (call.count == 0.0) backward.x.data = nullptr;
  return backward;
}

// ---- ReLU's bits ----

// Bits of ReLU are numbered as elements are. Eight of them make a byte, of one thread or of
// neighbouring ones, which all call this.
template <int count>
__device__ __forceinline__ void put_bits(uint8_t* kept, int64_t i, bool there, unsigned bits) {
#pragma unroll
  for (int n = count; n < 8; n *= 2)
    bits |= __shfl_down_sync(0xffffffffu, bits, unsigned(n / count)) << n;
  if (there && i % 8 == 0) kept[i / 8] = uint8_t(bits);
}

// The bit of element i and those that follow it in its byte; without ReLU all pass.
__device__ __forceinline__ unsigned bits_from(const uint8_t* kept, int64_t i) {
  return kept ? kept[i / 8] >> (i % 8) : 0xffu;
}

}  // namespace fastopt::cuda
