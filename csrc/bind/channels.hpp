// Arrays divided into channels, for BatchNorm.
#pragma once

#include <initializer_list>

#include "bind/array.hpp"
#include "core/batch_norm.hpp"

namespace fastopt::bind {

// An array, its name, and the description to be filled in.
struct Member {
  const Array& array;
  const char* role;
  ChannelArray& place;
};

// The common iteration space of arrays of one shape, and each array's strides in it. Arrays without an
// owner are skipped. The memory order of the first array decides; in the others, the same axis must be
// contiguous.
ChannelSpace read_space(int axis, std::initializer_list<Member> members);

// `axis` of an array, counted from the front.
int read_axis(int axis, const Array& x);

// One value per channel of x; without an owner if the object is None.
struct PerChannelArray {
  Array array;
  ChannelVector vector{};
};
PerChannelArray read_per_channel(py::handle object, const char* role, int64_t channels);

}  // namespace fastopt::bind
