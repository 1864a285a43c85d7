// Arrays as BatchNorm sees them: by channels.
#pragma once

#include <initializer_list>

#include "bind/array.hpp"
#include "core/batch_norm.hpp"

namespace fastopt::bind {

// An array, and where its place in the space goes.
struct Member {
  const Array& array;
  const char* role;
  ChannelArray& place;
};

// The space that arrays of one shape have in common, and their places in it; arrays without an owner
// are skipped. The memory order of the first one decides, and the fastest axis of the others must agree
// with it.
ChannelSpace read_space(int axis, std::initializer_list<Member> members);

// `axis` of an array, counted from the front.
int read_axis(int axis, const Array& x);

// One value for each channel of x; none if the object is None.
struct PerChannelArray {
  Array array;
  ChannelVector vector{};
};
PerChannelArray read_per_channel(py::handle object, const char* role, int64_t channels);

}  // namespace fastopt::bind
