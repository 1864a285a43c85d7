// Batch normalization (Ioffe & Szegedy 2015, arXiv:1502.03167), forward and backward. The constants of
// a channel are computed in double and rounded once to the compute type F.
#pragma once

#include "core/dtype.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

FASTOPT_HD double inverse_std(double var, double eps) { return 1.0 / sqrt(var + eps); }

// A running statistic after one more batch.
FASTOPT_HD double update_running(double old, double batch, double old_weight, double new_weight) {
  return old_weight * old + new_weight * batch;
}

// Over n or n - 1. For one value or none it is 0, not 0 / 0.
FASTOPT_HD double variance(double m2, double n, bool unbiased) {
  const double divisor = unbiased ? n - 1.0 : n;
  return m2 / (divisor < 1.0 ? 1.0 : divisor);
}

// The sum of dy (x - mu), from the sum about a mean that was rounded to F.
FASTOPT_HD double recentered(double sum_products, double sum_dy, double rounded_mean, double mu) {
  return sum_products + (rounded_mean - mu) * sum_dy;
}

// y = (x - mean) * scale + shift, centered first. The part of the mean that F cannot represent is added
// to the shift.
template <class F>
struct Normalize {
  F mean, scale, shift;

  static FASTOPT_HD Normalize of(double mu, double gamma_k, double beta) {
    const F mean = F(mu);
    return {mean, F(gamma_k), F(beta + (double(mean) - mu) * gamma_k)};
  }

  FASTOPT_HD F operator()(F x) const { return (x - mean) * scale + shift; }
};

// dx = gamma k (dy - sum(dy) / n - (x - mean) k^2 sum(dy (x - mean)) / n), k = invstd. If the
// statistics are constants (evaluation, n = 0), dx = gamma k dy.
template <class F>
struct NormalizeBackward {
  F mean, slope, offset, scale;

  static FASTOPT_HD NormalizeBackward of(double mu, double k, double gamma_k, double sum_dy,
                                         double sum_dy_centered, double n) {
    const F mean = F(mu);
    if (n == 0.0) return {mean, F(0), F(0), F(gamma_k)};
    const F slope = F(k * k * sum_dy_centered / n);
    return {mean, slope, F(sum_dy / n + (double(mean) - mu) * double(slope)), F(gamma_k)};
  }

  FASTOPT_HD F operator()(F x, F dy) const { return ((dy - offset) - (x - mean) * slope) * scale; }
};

// ReLU passes values above this threshold: those that are stored as more than zero. A value up to and
// including half the smallest number of a 16-bit type is stored as zero.
template <class P>
inline constexpr Compute<P> kReluFloor = 0;
template <>
inline constexpr float kReluFloor<Half> = 0x1p-25f;
template <>
inline constexpr float kReluFloor<BFloat16> = 0x1p-134f;

}  // namespace fastopt
