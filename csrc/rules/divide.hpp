// Division of indices by multiplication: on a GPU, 64-bit integer division is a subroutine of about a
// hundred instructions, and its callers keep registers in memory.
#pragma once

#include "core/buffer.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

struct DivMod {
  int64_t quotient, remainder;
};

FASTOPT_HD constexpr int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

// n / size, rounded up, for n >= 0.
template <class N, class Size>
FASTOPT_HD constexpr auto ceil_div(N n, Size size) {
  return (n + size - 1) / size;
}

FASTOPT_HD uint64_t upper_product(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  return uint64_t(static_cast<unsigned __int128>(a) * b >> 64);
#endif
}

// n / d for n >= 0. The reciprocal is rounded down, so the quotient is exact or one too small.
FASTOPT_HD DivMod divide(int64_t n, int64_t d, uint64_t reciprocal) {
  if (d <= 1) return {n, 0};
  const int64_t low = int64_t(upper_product(uint64_t(n), reciprocal));
  const int64_t remainder = n - low * d;
  return remainder < d ? DivMod{low, remainder} : DivMod{low + 1, remainder - d};
}

}  // namespace fastopt
