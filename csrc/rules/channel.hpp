// The computation for one channel, forward and backward, between the reduction over its elements and
// the pass that uses the result. Everything is double and rounded once, to the type the elements are
// computed in.
#pragma once

#include "core/batch_norm.hpp"
#include "rules/batch_norm.hpp"
#include "rules/half.hpp"
#include "rules/moments.hpp"

namespace fastopt {

// ---- a channel's value in a user's array: possibly unaligned on a host, aligned on a device ----

template <class T>
FASTOPT_HD double load_value(const char* p) {
#ifdef __CUDA_ARCH__
  return double(widen(*reinterpret_cast<const T*>(p)));
#else
  T stored;
  __builtin_memcpy(&stored, p, sizeof(T));
  return double(widen(stored));
#endif
}

// On a device the value is not copied byte by byte: ptxas 13.0 then takes the first byte of a value
// that was just rounded to 16 bits for the number itself, and converts it to an integer.
template <class T>
FASTOPT_HD void store_value(char* p, double value) {
  const T stored = narrow<T>(Compute<T>(value));
#ifdef __CUDA_ARCH__
  *reinterpret_cast<T*>(p) = stored;
#else
  __builtin_memcpy(p, &stored, sizeof(T));
#endif
}

FASTOPT_HD double get(const ChannelVector& v, int64_t c, double absent = 0.0) {
  if (!v.data) return absent;
  const char* p = v.data + c * v.stride;
  switch (v.dtype) {
    case DType::float16:
      return load_value<Half>(p);
    case DType::bfloat16:
      return load_value<BFloat16>(p);
    case DType::float32:
      return load_value<float>(p);
    case DType::float64:
      break;
  }
  return load_value<double>(p);
}

FASTOPT_HD void put(const ChannelVector& v, int64_t c, double value) {
  if (!v.data) return;
  char* p = v.data + c * v.stride;
  switch (v.dtype) {
    case DType::float16:
      return store_value<Half>(p, value);
    case DType::bfloat16:
      return store_value<BFloat16>(p, value);
    case DType::float32:
      return store_value<float>(p, value);
    case DType::float64:
      break;
  }
  store_value<double>(p, value);
}

// ---- forward ----
// In three parts, for a device: the inputs of a channel are read before its sums are available, the
// pass over the elements waits for the computed constants, and nothing waits for the results to be
// stored.

struct ForwardInputs {
  double gamma, beta, running_mean, running_var;
};
FASTOPT_HD ForwardInputs inputs_of(const BatchNormForward& call, int64_t c) {
  return {get(call.gamma, c, 1.0), get(call.beta, c), get(call.running.mean, c),
          get(call.running.var, c)};
}

// The result for a channel, before the constants of its elements are rounded.
struct Affine {
  double mean, var, invstd, scale, shift;
};

// `m` over n values: of the batch, or given; unused in evaluation.
FASTOPT_HD Affine affine_of(const BatchNormForward& call, const ForwardInputs& in, const Moments& m,
                            double n) {
  const double mean = call.evaluate ? in.running_mean : m.mean;
  const double var = call.evaluate ? in.running_var : variance(m.m2, n, false);
  const double invstd = inverse_std(var, call.eps);
  return {mean, var, invstd, in.gamma * invstd, in.beta};
}

FASTOPT_HD void put_results(const BatchNormForward& call, int64_t c, const ForwardInputs& in,
                            const Moments& m, double n, const Affine& a) {
  call.mean[c] = a.mean;
  call.var[c] = a.var;
  call.invstd[c] = a.invstd;
  call.scale[c] = a.scale;
  if (call.evaluate || n == 0) return;
  const Running& r = call.running;
  put(r.mean, c, update_running(in.running_mean, a.mean, r.old_weight, r.new_weight));
  put(r.var, c,
      update_running(in.running_var, variance(m.m2, n, r.unbiased), r.old_weight, r.new_weight));
}

template <class F>
FASTOPT_HD Normalize<F> normalize_of(const Affine& a) {
  return Normalize<F>::of(a.mean, a.scale, a.shift);
}

// ---- backward ----

struct BackwardInputs {
  double mean, invstd, scale;
};
FASTOPT_HD BackwardInputs inputs_of(const BatchNormBackward& call, int64_t c) {
  return {call.mean[c], call.invstd[c], call.scale[c]};
}

// The sums of dy and of dy (x - mean).
struct ChannelSums {
  double dy, dy_centered;
};
FASTOPT_HD ChannelSums sums_of(const BatchNormBackward& call, int64_t c) {
  return {call.sums.dy[c], call.sums.dy_centered[c]};
}

// The sums about the exact mean. Unless they were given, they were taken about the mean rounded to F.
template <class F>
FASTOPT_HD ChannelSums centered(const BatchNormBackward& call, const BackwardInputs& in,
                                ChannelSums sums) {
  if (!call.sums_given)
    sums.dy_centered = recentered(sums.dy_centered, sums.dy, double(F(in.mean)), in.mean);
  return sums;
}

FASTOPT_HD void put_results(const BatchNormBackward& call, int64_t c, const BackwardInputs& in,
                            const ChannelSums& sums) {
  if (!call.sums_given) {
    call.sums.dy[c] = sums.dy;
    call.sums.dy_centered[c] = sums.dy_centered;
  }
  put(call.dgamma, c, sums.dy_centered * in.invstd);
  put(call.dbeta, c, sums.dy);
}

template <class F>
FASTOPT_HD NormalizeBackward<F> gradient_of(const BatchNormBackward& call, const BackwardInputs& in,
                                            const ChannelSums& sums) {
  return NormalizeBackward<F>::of(in.mean, in.invstd, in.scale, sums.dy, sums.dy_centered, call.count);
}

}  // namespace fastopt
