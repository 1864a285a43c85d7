// Division of indices by multiplication: on a GPU the quotient of two 64-bit integers is a subroutine
// of some hundred instructions, and what calls one keeps its registers in memory.
#pragma once

#include "core/buffer.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

struct Divided {
  int64_t quotient, rest;
};

FASTOPT_HD uint64_t upper_product(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  return uint64_t(static_cast<unsigned __int128>(a) * b >> 64);
#endif
}

// n / d for n >= 0. An inverse rounded down gives a quotient that is right or one too small.
FASTOPT_HD Divided divide(int64_t n, int64_t d, uint64_t inverse) {
  if (d <= 1) return {n, 0};
  const int64_t low = int64_t(upper_product(uint64_t(n), inverse));
  const int64_t rest = n - low * d;
  return rest < d ? Divided{low, rest} : Divided{low + 1, rest - d};
}

}  // namespace fastopt
