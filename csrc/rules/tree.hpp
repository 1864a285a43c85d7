// The tree of every reduction: elements are assigned to lanes cyclically; lanes, then blocks, are
// combined in a binary tree over their index. The number of threads affects which thread computes a
// node, never the tree.
#pragma once

#include "rules/host_device.hpp"

namespace fastopt {

inline constexpr int kLanes = 16;  // 16 doubles: 8, 4 or 2 registers of SSE2, AVX2, AVX-512

struct Sum {
  static FASTOPT_HD double join(double a, double b) { return a + b; }
};

template <class Combine>
FASTOPT_HD double join_lanes(double* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = Combine::join(lanes[i], lanes[i + half]);
  return lanes[0];
}

// Calls join(a, b, distance) for each node of the tree over `count` values: value b, which stands for
// the `distance` values from b on, is combined into value a. A value without a partner is left
// unchanged. Dividing the values at multiples of a power of two and combining the parts' results gives
// the same tree.
template <class Join>
FASTOPT_HD void walk_tree(int64_t count, Join&& join) {
  for (int64_t distance = 1; distance < count; distance *= 2)
    for (int64_t i = 0; i + distance < count; i += 2 * distance) join(i, i + distance, distance);
}

template <class Combine>
FASTOPT_HD double join_tree(double* values, int64_t count) {
  if (count == 0) return 0.0;
  walk_tree(count,
            [=](int64_t a, int64_t b, int64_t) { values[a] = Combine::join(values[a], values[b]); });
  return values[0];
}

}  // namespace fastopt
