// What a channel's numbers become, forward and backward, between reading its elements and computing
// with them. Everything is double, and rounded once where it meets the elements.
#pragma once

#include "core/batch_norm.hpp"
#include "rules/batch_norm.hpp"
#include "rules/half.hpp"
#include "rules/moments.hpp"

namespace fastopt {

// ---- a channel's value in a user's array, aligned or not ----

template <class T>
FASTOPT_HD double load_value(const char* p) {
  T stored;
  __builtin_memcpy(&stored, p, sizeof(T));
  return double(widen(stored));
}

template <class T>
FASTOPT_HD void store_value(char* p, double value) {
  const T stored = narrow<T>(Compute<T>(value));
#ifdef __CUDA_ARCH__
  // ptxas 13.0 takes the first byte of what it has just rounded to 16 bits for the number that it is,
  // and converts it to an integer. A register of 32 bits is one to it.
  if constexpr (sizeof(T) == 2) {
    uint32_t whole = stored.bits;
    asm("" : "+r"(whole));
    __builtin_memcpy(p, &whole, sizeof(T));
    return;
  }
#endif
  __builtin_memcpy(p, &stored, sizeof(T));
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

FASTOPT_HD void track(const Running& r, int64_t c, double mean, double var) {
  put(r.mean, c, follow(get(r.mean, c), mean, r.keep, r.take));
  put(r.var, c, follow(get(r.var, c), var, r.keep, r.take));
}

// `m` over n values: the batch's, or given; of no use in evaluation.
FASTOPT_HD void finish_forward(const BatchNormForward& call, int64_t c, const Moments& m, double n) {
  if (call.evaluate) {
    call.mean[c] = get(call.running.mean, c);
    call.var[c] = get(call.running.var, c);
  } else {
    call.mean[c] = m.mean;
    call.var[c] = variance(m.m2, n, false);
    if (n > 0) track(call.running, c, m.mean, variance(m.m2, n, call.running.unbiased));
  }
  call.invstd[c] = inverse_std(call.var[c], call.eps);
  call.scale[c] = get(call.gamma, c, 1.0) * call.invstd[c];
}

template <class F>
FASTOPT_HD Normalize<F> normalize_of(const BatchNormForward& call, int64_t c) {
  return Normalize<F>::of(call.mean[c], call.scale[c], get(call.beta, c));
}

// ---- backward ----

// The sums of a channel, call.sums, are given or were just taken about a mean that was rounded to F.
template <class F>
FASTOPT_HD void finish_backward(const BatchNormBackward& call, int64_t c) {
  double& products = call.sums.dy_centred[c];
  if (!call.given)
    products = recentred(products, call.sums.dy[c], double(F(call.mean[c])), call.mean[c]);
  put(call.dgamma, c, products * call.invstd[c]);
  put(call.dbeta, c, call.sums.dy[c]);
}

template <class F>
FASTOPT_HD NormalizeBackward<F> gradient_of(const BatchNormBackward& call, int64_t c) {
  return NormalizeBackward<F>::of(call.mean[c], call.invstd[c], call.scale[c], call.sums.dy[c],
                                  call.sums.dy_centred[c], call.count);
}

}  // namespace fastopt
