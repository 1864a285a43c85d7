// Arrays as kernels see them: where they lie and, if not simply one element after the other, how to
// walk.
#pragma once

#include <cstdint>

namespace fastopt {

inline constexpr int kMaxDims = 64;
inline constexpr int64_t kCacheLine = 64;  // bytes

// 2**64 / d for d > 1, rounded down: who has it divides by multiplying (rules/divide.hpp).
constexpr uint64_t reciprocal_of(int64_t d) {
  return d > 1 ? UINT64_MAX / uint64_t(d) + (UINT64_MAX % uint64_t(d) + 1 == uint64_t(d)) : 0;
}

// How to visit a strided array in a given order: axes from the slowest to the fastest.
struct Walk {
  int64_t ndim;
  int64_t shape[kMaxDims];
  int64_t stride[kMaxDims];       // bytes
  uint64_t reciprocal[kMaxDims];  // of the shape
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
