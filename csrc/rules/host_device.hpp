// The primitives that all rules use: IEEE operations, identical on host and device.
#pragma once

#include <cfloat>
#include <cstdint>

// Always inlined: files compiled per instruction set must not emit a weak copy of a rule, because the
// linker could keep the AVX-512 version for all CPUs.
#ifdef __CUDACC__
#define FASTOPT_HD __host__ __device__ __forceinline__
#define FASTOPT_UNROLL _Pragma("unroll")
#else
#define FASTOPT_HD inline __attribute__((always_inline))
#define FASTOPT_UNROLL _Pragma("GCC unroll 16")
#endif

// For functions and lambdas of the CPU's kernels.
#define FASTOPT_INLINE __attribute__((always_inline))

namespace fastopt {

FASTOPT_HD float sqrt(float x) { return __builtin_sqrtf(x); }
FASTOPT_HD double sqrt(double x) { return __builtin_sqrt(x); }
FASTOPT_HD float abs(float x) { return __builtin_fabsf(x); }
FASTOPT_HD double abs(double x) { return __builtin_fabs(x); }

// Neither NaN nor infinite.
template <class F>
FASTOPT_HD bool is_finite(F x) {
  return x - x == F(0);
}

// -1, 0 or 1; 0 for NaN.
template <class F>
FASTOPT_HD F sign(F x) {
  return F(x > F(0)) - F(x < F(0));
}

// The larger; NaN if either is.
template <class F>
FASTOPT_HD F maximum(F a, F b) {
  return (b > a || b != b) ? b : a;
}

// x limited to [-limit, limit]; NaN stays NaN.
template <class F>
FASTOPT_HD F clamp(F x, F limit) {
  return x > limit ? limit : (x < -limit ? -limit : x);
}

// A state value below the smallest normal number is stored as zero. Moments that decay while the
// gradient is zero would otherwise become subnormal, where some CPUs take a hundred times as long.
FASTOPT_HD float flush_subnormal(float x) { return abs(x) < FLT_MIN ? 0.0f : x; }
FASTOPT_HD double flush_subnormal(double x) { return abs(x) < DBL_MIN ? 0.0 : x; }

// base**n by repeated squaring: only IEEE multiplications, so host and device agree bit for bit.
FASTOPT_HD double ipow(double base, int64_t n) {
  double result = 1.0;
  for (; n > 0; n >>= 1, base *= base)
    if (n & 1) result *= base;
  return result;
}

}  // namespace fastopt
