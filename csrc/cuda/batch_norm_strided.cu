// BatchNorm's element-wise passes over arrays of any strides: one thread per element.
#include "cuda/batch_norm_elements.hpp"
#include "cuda/flat.hpp"

namespace fastopt::cuda {
namespace {

template <class P>
__device__ __forceinline__ P* place(const Channels& s, const ChannelArray& a, const ChannelPos& at) {
  return reinterpret_cast<P*>(a.data + offset_of(s, a, at, sizeof(P)));
}

template <class P>
__global__ void __launch_bounds__(kElementThreads)
    normalize_strided(const FASTOPT_GRID_CONSTANT BatchNormForward call,
                      const FASTOPT_GRID_CONSTANT Channels s, const RuleArrays arrays) {
  grid_dependency_wait();
  const int64_t i = int64_t(blockIdx.x) * kElementThreads + threadIdx.x;
  const bool there = i < s.elements;
  unsigned bits = 0;
  if (there) {
    const ChannelPos at = position_of(s, i);
    const auto rule = arrays.get<Normalize<Compute<P>>>(at.channel);
    const P x[] = {element<P>(s, call.x, at)};
    const P residual[] = {call.residual.data ? element<P>(s, call.residual, at) : P{}};
    P y[1];
    bits = normalize(call, [&](int) { return rule; }, x, residual, y);
    *place<P>(s, call.y, at) = y[0];
  }
  if (call.relu_mask) store_mask_bits<1>(call.relu_mask, i, there, bits);
}

template <class P>
__global__ void __launch_bounds__(kElementThreads)
    gradient_strided(const FASTOPT_GRID_CONSTANT BatchNormBackward call,
                     const FASTOPT_GRID_CONSTANT Channels s, const RuleArrays arrays) {
  grid_dependency_wait();
  const int64_t i = int64_t(blockIdx.x) * kElementThreads + threadIdx.x;
  if (i >= s.elements) return;
  const ChannelPos at = position_of(s, i);
  const auto rule = arrays.get<NormalizeBackward<Compute<P>>>(at.channel);
  const P x[] = {call.x.data ? element<P>(s, call.x, at) : P{}};
  P dy[] = {element<P>(s, call.dy, at)}, dx[1];
  if (call.relu_mask) apply_relu_mask(bits_from(call.relu_mask, i), dy);
  differentiate(call, [&](int) { return rule; }, x, dy, dx);
  *place<P>(s, call.dx, at) = dx[0];
  if (call.dresidual.data) *place<P>(s, call.dresidual, at) = dy[0];
}

template <class Call>
void queue(void (*kernel)(Call, Channels, RuleArrays), const Call& call, const Channels& s,
           const RuleArrays& rules) {
  launch(call.place, kernel, ceil_div(s.elements, kElementThreads), kElementThreads, call, s, rules);
}

}  // namespace

void queue_strided(const BatchNormForward& call, const Channels& s, const RuleArrays& rules) {
  with_dtype(call.dtype, [&]<class P> { queue(normalize_strided<P>, call, s, rules); });
}

void queue_strided(const BatchNormBackward& call, const Channels& s, const RuleArrays& rules) {
  with_dtype(call.dtype, [&]<class P> { queue(gradient_strided<P>, call, s, rules); });
}

}  // namespace fastopt::cuda
