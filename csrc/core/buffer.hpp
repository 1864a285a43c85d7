// Arrays as kernels take them: an address and, for arrays that are not contiguous, a description of
// their strides.
#pragma once

#include <cstdint>

namespace fastopt {

inline constexpr int kMaxDims = 64;
inline constexpr int64_t kCacheLine = 64;  // bytes

// 2**64 / d for d > 1, rounded down, to divide by multiplication (rules/divide.hpp).
constexpr uint64_t reciprocal_of(int64_t d) {
  return d > 1 ? UINT64_MAX / uint64_t(d) + (UINT64_MAX % uint64_t(d) + 1 == uint64_t(d)) : 0;
}

// How to visit a strided array in a given order: its axes from slowest to fastest.
struct Walk {
  int64_t ndim;
  int64_t shape[kMaxDims];
  int64_t stride[kMaxDims];       // bytes
  uint64_t reciprocal[kMaxDims];  // of the shape
};

// A buffer that is only read. Without a walk, its elements are contiguous in the order of the visit.
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
