// Norms, of a fixed shape. A list of arrays is one sequence of elements; the sequence is cut into
// blocks of kNormBlock; inside a block element i belongs to lane i mod kNormLanes; lanes, then blocks,
// are joined in a binary tree over their index. Threads decide who computes a node, never which nodes
// there are, and cutting one array into a list changes nothing. Both numbers are part of the contract:
// changing them changes results, and so is a new major version.
#pragma once

#include "core/hyper.hpp"
#include "rules/host_device.hpp"

namespace fastopt {

inline constexpr int kNormLanes = 16;    // 16 doubles: 8, 4 or 2 registers of SSE2, AVX2, AVX-512
inline constexpr int kNormBlock = 4096;  // 16 KiB of float32: half a first-level cache

// A norm: what an element adds, how two parts join, what the whole gives. Sums are kept in double: the
// square of a float is exact there and neither 1e30 nor 1e-30 leaves its range.
struct Norm2 {
  static FASTOPT_HD double part(double x) { return x * x; }
  static FASTOPT_HD double join(double a, double b) { return a + b; }
  static FASTOPT_HD double whole(double sum) { return root(sum); }
};
struct Norm1 {
  static FASTOPT_HD double part(double x) { return magnitude(x); }
  static FASTOPT_HD double join(double a, double b) { return a + b; }
  static FASTOPT_HD double whole(double sum) { return sum; }
};
struct NormMax {
  static FASTOPT_HD double part(double x) { return magnitude(x); }
  static FASTOPT_HD double join(double a, double b) { return larger(a, b); }
  static FASTOPT_HD double whole(double most) { return most; }
};

template <class Norm>
FASTOPT_HD double join_lanes(double* lanes) {
  for (int half = kNormLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = Norm::join(lanes[i], lanes[i + half]);
  return lanes[0];
}

// Joins count values in a binary tree over their index; a node without a right child passes its left
// one on. Cutting at a multiple of a power of two and joining the parts' results gives the same tree.
template <class Norm>
FASTOPT_HD double join_tree(double* values, int64_t count) {
  if (count == 0) return 0.0;
  for (int64_t step = 1; step < count; step *= 2)
    for (int64_t i = 0; i + step < count; i += 2 * step)
      values[i] = Norm::join(values[i], values[i + step]);
  return values[0];
}

}  // namespace fastopt
