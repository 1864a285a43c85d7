// Mean and sum of squared deviations of a channel, as a fixed reduction tree: the values in memory
// order are divided into blocks; a block is summed about its first value, in quarters that are added in
// order; blocks are combined in a binary tree (tree.hpp). Everything is double. The square of a mean is
// never subtracted from a mean of squares: deviations from a value of the block itself leave no
// significant cancellation, whatever the mean. The constants are part of the contract: changing them
// changes results and requires a new major version.
#pragma once

#include <type_traits>

#include "rules/divide.hpp"
#include "rules/tree.hpp"

namespace fastopt {

// Planes: value i of a block belongs to lane i mod kLanes. Memory idles at the end of a block: from
// DRAM, blocks of 1024 float32 take 1.7 times as long (Zen 4).
inline constexpr int kPlaneBlock = 4096;
// Rows: a channel's values in a block are summed from first to last. 512 bytes of float32 yield 16
// bytes of partial results.
inline constexpr int kRowBlock = 128;

// The values of a lane in a quarter are summed sequentially, and in rows those of a channel. On a
// device each addition takes a thread 18 to 32 cycles; four times as many were the longest part
// of a small array's sums.
inline constexpr int kQuarters = 4;

struct Moments {
  double mean;
  double m2;
};

// c + a * b, where a and b are values of type F. The product of two floats is exact in double, so a
// fused multiply-add, which does not round it, gives the same bits. D is double or a vector of doubles.
// Not on devices: there one of the kernels would spill registers.
template <class F, class D>
FASTOPT_HD D add_product(const D& c, const D& a, const D& b) {
#if (defined(__FMA__) || defined(__ARM_FEATURE_FMA)) && !defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<F, float> && std::is_same_v<D, double>) {
    return __builtin_fma(a, b, c);
  } else if constexpr (std::is_same_v<F, float>) {
    D fused;
    for (int i = 0; i < int(sizeof(D) / sizeof(double)); ++i)
      fused[i] = __builtin_fma(a[i], b[i], c[i]);
    return fused;
  }
#endif
  return c + a * b;
}

// Add a value to the two sums of a block, of moments or of the backward pass, where `x` is x - mean.
template <class D, class Pivot>
FASTOPT_HD void add_moment(const D& x, const Pivot& pivot, D& sum, D& square) {
  const D d = x - pivot;
  sum += d;
  square += d * d;
}
template <class F, class D>
FASTOPT_HD void add_gradient(const D& dy, const D& x, D& sum, D& product) {
  sum += dy;
  product = add_product<F>(product, dy, x);
}

// From the sums of d and d * d over `count` values, d = x - pivot. Rounding may make m2 slightly
// negative, which becomes 0. If the squares overflow, m2 is infinite like them, not inf - inf.
FASTOPT_HD Moments moments_about(double pivot, double sum, double squares, double count) {
  const double mean = sum / count;
  const double m2 = squares - sum * mean;
  return {pivot + mean, m2 != m2 ? squares : maximum(m2, 0.0)};
}

// Weights for combining n and n_b values. In the common case n == n_b they need no division, which on a
// GPU would cost as much as the rest of the combination.
struct Weights {
  double mean, m2;
};
FASTOPT_HD Weights even_weights(double n) { return {0.5, 0.5 * n}; }
FASTOPT_HD Weights weights_of(double n, double n_b) {
  if (n == n_b) return even_weights(n);
  const double both = n + n_b;
  return {n_b / both, n * n_b / both};
}

// Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1.
struct JoinMoments {
  static FASTOPT_HD void join(double& mean, double& m2, double mean_b, double m2_b, const Weights& w) {
    const double d = mean_b - mean;
    mean = mean + d * w.mean;
    m2 = (m2 + m2_b) + d * d * w.m2;
  }
};

struct JoinSums {
  static FASTOPT_HD void join(double& a, double& b, double a_b, double b_b, const Weights&) {
    a = a + a_b;
    b = b + b_b;
  }
};

// The number of values in `blocks` blocks from `block` on: `size` each, except for the last block of a
// total of `count` values.
FASTOPT_HD double values_in(int64_t block, int64_t blocks, int64_t size, int64_t count) {
  const int64_t end = (block + blocks) * size;
  return double((end < count ? end : count) - block * size);
}

// Combines the blocks of `channels` neighboring channels. The two numbers of a block are at
// a[block * stride + channel] and b[block * stride + channel]; the result is left in block 0. All
// blocks but the last have `size` values; the channel has `count`.
template <class Combine>
FASTOPT_HD void join_blocks(double* a, double* b, int64_t stride, int64_t channels, int64_t size,
                            int64_t count) {
  walk_tree(ceil_div(count, size), [=](int64_t left, int64_t right, int64_t distance) {
    const Weights w =
        weights_of(values_in(left, distance, size, count), values_in(right, distance, size, count));
    double *la = a + left * stride, *lb = b + left * stride;
    const double *ra = a + right * stride, *rb = b + right * stride;
    for (int64_t c = 0; c < channels; ++c) Combine::join(la[c], lb[c], ra[c], rb[c], w);
  });
}

}  // namespace fastopt
