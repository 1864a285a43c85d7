// Arrays that do not lie in memory as they are visited.
#pragma once

#include <cstdint>

namespace fastopt {

inline constexpr int kMaxDims = 64;

// How to visit a strided array in the memory order of another: axes from the slowest to the fastest.
struct Walk {
  int ndim;
  int64_t shape[kMaxDims];
  int64_t stride[kMaxDims];  // bytes
};

// A buffer that is only read. Dense in the order of its target unless it comes with a walk.
struct Source {
  const void* data;
  const Walk* walk;
};

}  // namespace fastopt
