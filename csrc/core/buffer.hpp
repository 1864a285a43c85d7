// Arrays as kernels see them: where they lie and, if not simply one element after the other, how to
// walk.
#pragma once

#include <cstdint>

namespace fastopt {

inline constexpr int kMaxDims = 64;

// How to visit a strided array in a given order: axes from the slowest to the fastest.
struct Walk {
  int ndim;
  int64_t shape[kMaxDims];
  int64_t stride[kMaxDims];  // bytes
};

// A buffer that is only read. Its elements follow each other in the order they are visited in, unless
// it comes with a walk.
struct Source {
  const void* data;
  const Walk* walk;
};

// A buffer that is only written, likewise.
struct Target {
  void* data;
  const Walk* walk;
};

}  // namespace fastopt
