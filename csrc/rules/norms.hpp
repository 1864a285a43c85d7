// Norms, of a fixed shape. A list of arrays is one sequence of elements; the sequence is cut into
// blocks of kNormBlock; inside a block element i belongs to lane i mod kNormLanes; lanes, then blocks,
// are joined in a binary tree over their index. Threads decide who computes a node, never which nodes
// there are, and cutting one array into a list changes nothing. Both numbers are part of the contract:
// changing them changes results, and so is a new major version.
#pragma once

#include "core/hyper.hpp"
#include "rules/tree.hpp"

namespace fastopt {

inline constexpr int kNormLanes = kLanes;
inline constexpr int kNormBlock = 4096;  // 16 KiB of float32: half a first-level cache

// A norm: what an element adds, how two parts join, what the whole gives. Sums are kept in double: the
// square of a float is exact there and neither 1e30 nor 1e-30 leaves its range.
struct Norm2 : Sum {
  static FASTOPT_HD double part(double x) { return x * x; }
  static FASTOPT_HD double whole(double sum) { return root(sum); }
};
struct Norm1 : Sum {
  static FASTOPT_HD double part(double x) { return magnitude(x); }
  static FASTOPT_HD double whole(double sum) { return sum; }
};
struct NormMax {
  static FASTOPT_HD double part(double x) { return magnitude(x); }
  static FASTOPT_HD double join(double a, double b) { return larger(a, b); }
  static FASTOPT_HD double whole(double most) { return most; }
};

}  // namespace fastopt
