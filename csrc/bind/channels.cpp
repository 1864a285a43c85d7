#include "bind/channels.hpp"

#include <algorithm>
#include <cstdlib>

namespace fastopt::bind {
namespace {

// Whether axis `a` of x varies faster than axis `b`. For equal strides, as in sliding windows, the
// later axis is taken as the faster one, which is the order that a library gives to a new array like x.
bool is_faster(const Array& x, int a, int b) {
  const auto stride_a = std::abs(x.strides[a]), stride_b = std::abs(x.strides[b]);
  return stride_a != stride_b ? stride_a < stride_b : a > b;
}

// The axes longer than 1 except the channel axis, from the slowest to the fastest.
std::vector<int> walked_axes(const Array& x, int axis) {
  std::vector<int> axes;
  for (int d = 0; d < x.ndim; ++d)
    if (d != axis && x.shape[d] > 1) axes.push_back(d);
  std::sort(axes.begin(), axes.end(), [&](int a, int b) { return is_faster(x, b, a); });
  return axes;
}

void require_side_by_side(bool is, const Member& m, const Member& x) {
  if (is) return;
  const auto strides = [](const Member& of) { return tuple_text(of.array.strides, of.array.ndim); };
  std::string x_text;
  if (&m.array != &x.array)
    x_text = ", in the order of x, which has strides " + strides(x) + "; pass a copy in that order";
  throw py::value_error(std::string(m.role) + " has shape " + tuple_text(m.array.shape, m.array.ndim) +
                        " and strides " + strides(m) +
                        ", expected its fastest-varying axis to be contiguous" + x_text);
}

// Merges adjacent axes that have one common stride in every array.
void merge(ChannelSpace& s, const std::vector<Member>& members) {
  int last = 0;
  for (int d = 1; d < s.ndim; ++d) {
    const bool even = std::all_of(members.begin(), members.end(), [&](const Member& m) {
      return m.place.stride[last] == s.shape[d] * m.place.stride[d];
    });
    if (!even) ++last;
    s.shape[last] = even ? s.shape[last] * s.shape[d] : s.shape[d];
    for (const Member& m : members) m.place.stride[last] = m.place.stride[d];
  }
  s.ndim = s.ndim > 0 ? last + 1 : 0;
}

}  // namespace

int read_axis(int axis, const Array& x) {
  if (x.ndim < 2)
    throw py::value_error("x has shape " + tuple_text(x.shape, x.ndim) +
                          ", expected at least two axes: the batch and the channels");
  if (axis < -x.ndim || axis >= x.ndim)
    throw py::value_error("axis must lie in [" + std::to_string(-x.ndim) + ", " +
                          std::to_string(x.ndim - 1) + "] for x of shape " +
                          tuple_text(x.shape, x.ndim) + ", got " + std::to_string(axis));
  return axis < 0 ? axis + x.ndim : axis;
}

ChannelSpace read_space(int axis, std::initializer_list<Member> all) {
  std::vector<Member> members;
  for (const Member& m : all)
    if (m.array.owner) members.push_back(m);
  const Member& first = members.front();
  const Array& x = first.array;
  ChannelSpace s;
  s.channels = x.shape[axis];
  s.rows = false;
  s.inner = s.outer = 1;
  s.ndim = 0;
  for (const Member& m : members) m.place.data = m.array.data;
  if (x.size() == 0) {
    s.outer = 0;
    return s;
  }

  const std::vector<int> axes = walked_axes(x, axis);
  s.rows = s.channels > 1 && (axes.empty() || is_faster(x, axis, axes.back()));
  for (const int d : axes) {
    for (const Member& m : members) m.place.stride[s.ndim] = m.array.strides[d];
    s.shape[s.ndim++] = x.shape[d];
  }
  merge(s, members);
  const int64_t itemsize = int64_t(bytes_of(x.dtype));
  const bool planes = !s.rows && s.ndim > 0;
  for (const Member& m : members) {
    m.place.channel = m.array.strides[axis];
    const int64_t step = planes ? m.place.stride[s.ndim - 1] : m.place.channel;
    require_side_by_side(step == itemsize || (!planes && s.channels == 1), m, first);
  }
  if (planes) s.inner = s.shape[--s.ndim];
  for (int d = 0; d < s.ndim; ++d) s.outer *= s.shape[d];
  return s;
}

PerChannelArray read_per_channel(py::handle object, const char* role, int64_t channels) {
  PerChannelArray read;
  if (object.is_none()) return read;
  read.array = read_array(object, {role});
  const Array& a = read.array;
  if (a.ndim != 1 || a.shape[0] != channels)
    throw py::value_error(std::string(role) + " has shape " + tuple_text(a.shape, a.ndim) +
                          ", expected (" + std::to_string(channels) +
                          ",): one value for each channel of x");
  read.vector = {a.data, a.dtype, a.strides[0]};
  return read;
}

}  // namespace fastopt::bind
