// Norms, as a fixed reduction tree. A list of arrays is one sequence of elements, divided into blocks
// of kNormBlock. Within a block, element i belongs to lane i mod kNormLanes; lanes, then blocks, are
// combined in a binary tree over their index. The number of threads affects which thread computes a
// node, never the tree, and dividing an array into a list of arrays changes nothing. Both numbers are
// part of the contract: changing them changes results and requires a new major version.
#pragma once

#include "core/dtype.hpp"
#include "core/hyper.hpp"
#include "rules/tree.hpp"

namespace fastopt {

inline constexpr int kNormLanes = kLanes;
inline constexpr int kNormBlock = 4096;  // 16 KiB of float32: half a first-level cache

// A norm: the contribution of an element, how two parts are combined, and the final result. Sums are
// double: the square of a float is exact there, and the squares of 1e30 and 1e-30 are in range.
struct Norm2 : Sum {
  static FASTOPT_HD double part(double x) { return x * x; }
  static FASTOPT_HD double whole(double sum) { return sqrt(sum); }
};
struct Norm1 : Sum {
  static FASTOPT_HD double part(double x) { return abs(x); }
  static FASTOPT_HD double whole(double sum) { return sum; }
};
struct NormMax {
  static FASTOPT_HD double part(double x) { return abs(x); }
  static FASTOPT_HD double join(double a, double b) { return maximum(a, b); }
  static FASTOPT_HD double whole(double most) { return most; }
};

// The exponent field of a positive double: x is in [2**e, 2**(e + 1)), or below 2**-1022 for e = -1023.
FASTOPT_HD int exponent_of(double x) {
  int64_t bits;
  __builtin_memcpy(&bits, &x, sizeof(x));
  return int(bits >> 52) - 1023;
}

// 2**e for -1022 <= e <= 1023.
FASTOPT_HD double power_of_two(int e) {
  const int64_t bits = int64_t(e + 1023) << 52;
  double x;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}

// Squares of doubles can overflow or underflow although the norm itself is in range. The sequence is
// then read again, multiplied by a power of two that brings every square that matters into range.
// Elements stored in fewer bits are negligible beside such doubles.
struct Norm2State {
  double sum = 0.0;           // of squares
  double max_abs = 0.0;       // the largest absolute value, if the sum is out of range
  double rescaled_sum = 0.0;  // the sum of squares times rescale()**2, likewise

  FASTOPT_HD bool out_of_range() const { return !(is_finite(sum) && sum > 0x1p-900); }
  FASTOPT_HD bool can_rescale() const { return out_of_range() && max_abs > 0.0 && is_finite(max_abs); }

  // Brings max_abs near 2**10 or, if it is small, near 2**-60. A tensor's scale times this factor is
  // then a normal number wherever the tensor has an element that matters.
  FASTOPT_HD double rescale() const {
    return power_of_two((max_abs > 1.0 ? 10 : -60) - exponent_of(max_abs));
  }
  FASTOPT_HD double norm(bool doubles) const {
    if (!doubles || !out_of_range()) return sqrt(sum);
    return can_rescale() ? sqrt(rescaled_sum) * (1.0 / rescale()) : max_abs;
  }
};

// The scale of a tensor's elements when they are read again. The product overflows only if all elements
// are zero: limited, it leaves them zero, where infinity would make them NaN.
FASTOPT_HD double rescaled(double scale, DType dtype, double factor) {
  return dtype == DType::float64 ? clamp(scale * factor, DBL_MAX) : 0.0;
}

}  // namespace fastopt
