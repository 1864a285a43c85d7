// The memory layout of arrays, and how to visit their elements.
#include <algorithm>

#include "bind/array.hpp"

namespace fastopt::bind {

Layout::Layout(const Array& a)
    : shape(a.shape, a.shape + a.ndim), strides(a.strides, a.strides + a.ndim) {}

bool Layout::is_of(const Array& a) const {
  return size_t(a.ndim) == shape.size() && std::equal(shape.begin(), shape.end(), a.shape) &&
         std::equal(strides.begin(), strides.end(), a.strides);
}

std::vector<int> Layout::axes() const {
  std::vector<int> order;
  for (int d = 0; d < int(shape.size()); ++d)
    if (shape[d] > 1) order.push_back(d);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return strides[a] > strides[b]; });
  return order;
}

bool Layout::dense(int64_t itemsize) const {
  const std::vector<int> order = axes();
  int64_t stride = itemsize;
  for (auto d = order.rbegin(); d != order.rend(); stride *= shape[*d++])
    if (strides[*d] != stride) return false;
  return true;
}

bool same_order(const Layout& layout, int64_t itemsize, const Array& a) {
  const int64_t own = int64_t(bytes_of(a.dtype));
  for (int d = 0; d < a.ndim; ++d)
    if (a.shape[d] > 1 && a.strides[d] * itemsize != layout.strides[d] * own) return false;
  return true;
}

bool is_row_major(const Array& a) {
  int64_t stride = int64_t(bytes_of(a.dtype));
  for (int d = a.ndim - 1; d >= 0; stride *= a.shape[d--])
    if (a.shape[d] > 1 && a.strides[d] != stride) return false;
  return true;
}

static Walk with_reciprocals(Walk walk) {
  for (int64_t d = 0; d < walk.ndim; ++d) walk.reciprocal[d] = reciprocal_of(walk.shape[d]);
  return walk;
}

Walk row_walk(const Array& a) {
  Walk walk{};
  for (int d = 0; d < a.ndim; ++d) {
    if (a.shape[d] == 1) continue;
    const int64_t last = walk.ndim - 1;
    const bool follows = last >= 0 && walk.stride[last] == a.shape[d] * a.strides[d];
    if (follows)
      walk.shape[last] *= a.shape[d];
    else
      walk.shape[walk.ndim++] = a.shape[d];
    walk.stride[walk.ndim - 1] = a.strides[d];
  }
  return with_reciprocals(walk);
}

Walk walk_like(const Layout& layout, const Array& a) {
  Walk walk{};
  for (const int d : layout.axes()) {
    walk.shape[walk.ndim] = a.shape[d];
    walk.stride[walk.ndim++] = a.strides[d];
  }
  return with_reciprocals(walk);
}

bool same_elements(const Array& a, const Array& b) {
  const bool same_shape = a.ndim == b.ndim && std::equal(a.shape, a.shape + a.ndim, b.shape);
  if (!same_shape || a.data != b.data || a.size() == 0) return false;
  for (int d = 0; d < a.ndim; ++d)
    if (a.shape[d] > 1 && a.strides[d] != b.strides[d]) return false;
  return true;
}

Range range_of(const Array& a) {
  int64_t low = 0, high = int64_t(bytes_of(a.dtype));
  for (int d = 0; d < a.ndim; ++d) {
    if (a.shape[d] == 0) return {a.data, a.data};
    const int64_t reach = (a.shape[d] - 1) * a.strides[d];
    (reach < 0 ? low : high) += reach;
  }
  return {a.data + low, a.data + high};
}

}  // namespace fastopt::bind
