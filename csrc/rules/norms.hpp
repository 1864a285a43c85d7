// Norms, of a fixed shape. A list of arrays is one sequence of elements; the sequence is cut into
// blocks of kNormBlock; inside a block element i belongs to lane i mod kNormLanes; lanes, then blocks,
// are joined in a binary tree over their index. Threads decide who computes a node, never which nodes
// there are, and cutting one array into a list changes nothing. Both numbers are part of the contract:
// changing them changes results, and so is a new major version.
#pragma once

#include "core/dtype.hpp"
#include "core/hyper.hpp"
#include "rules/tree.hpp"

namespace fastopt {

inline constexpr int kNormLanes = kLanes;
inline constexpr int kNormBlock = 4096;  // 16 KiB of float32: half a first-level cache

// A norm: what an element adds, how two parts join, what the whole gives. Sums are kept in double: the
// square of a float is exact there and neither 1e30 nor 1e-30 leaves its range.
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

// Squares of doubles may leave the range of a double where the norm itself does not. Then the sequence
// is read again, times a power of two that brings every square that matters into range; against those
// doubles whatever is stored in fewer bits counts for nothing.
struct Norm2State {
  double sum = 0.0;      // of squares
  double most = 0.0;     // the largest magnitude, if the sum has left its range
  double shifted = 0.0;  // the sum of squares times shift()**2, likewise

  FASTOPT_HD bool out_of_range() const { return !(is_finite(sum) && sum > 0x1p-900); }
  FASTOPT_HD bool helps() const { return out_of_range() && most > 0.0 && is_finite(most); }
  FASTOPT_HD double shift() const { return most > 1.0 ? 0x1p-600 : 0x1p600; }
  FASTOPT_HD double norm(bool doubles) const {
    if (!doubles || !out_of_range()) return sqrt(sum);
    return helps() ? sqrt(shifted) * (1.0 / shift()) : most;
  }
};

// What such an element is multiplied by in the second reading.
FASTOPT_HD double shifted_scale(double scale, DType dtype, double shift) {
  return dtype == DType::float64 ? scale * shift : 0.0;
}

}  // namespace fastopt
