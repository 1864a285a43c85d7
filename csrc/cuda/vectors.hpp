// Memory access by threads: 16 bytes at a time where alignment allows it, otherwise one element at a
// time.
#pragma once

#include <type_traits>

#include "core/buffer.hpp"
#include "cuda/launch.hpp"
#include "rules/divide.hpp"
#include "rules/half.hpp"

namespace fastopt::cuda {

inline constexpr int kVectorBytes = 16;

template <class P>
inline constexpr int kPerVector = kVectorBytes / int(sizeof(P));

__host__ __device__ __forceinline__ bool aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % kVectorBytes == 0;
}

// The type as which `count` elements of T are moved: whole vectors, or half a vector.
template <int count, class T>
using VectorOf = std::conditional_t<count * sizeof(T) % kVectorBytes == 0, uint4, uint2>;

// Whether the data will be used again soon.
enum class CacheHint : uint8_t { normal, streaming };

// Loads `count` adjacent elements; several are loaded as vectors.
template <int count, CacheHint hint = CacheHint::normal, class T>
__device__ __forceinline__ void load(const T* from, T (&to)[count]) {
  if constexpr (count == 1) {
    to[0] = *from;
  } else {
    using V = VectorOf<count, T>;
    constexpr int per = int(sizeof(V) / sizeof(T));
#pragma unroll
    for (int k = 0; k < count; k += per) {
      const V* const p = reinterpret_cast<const V*>(from + k);
      const V vector = hint == CacheHint::streaming ? __ldcs(p) : *p;
      __builtin_memcpy(to + k, &vector, sizeof(vector));
    }
  }
}

// Uses an intrinsic, which the compiler does not split: it split plain stores where another branch
// stores the same elements one by one. Bypasses the L1 cache, as all stores do.
template <int count, CacheHint hint = CacheHint::normal, class T>
__device__ __forceinline__ void store(T* to, const T (&from)[count]) {
  if constexpr (count == 1) {
    *to = from[0];
  } else {
    using V = VectorOf<count, T>;
    constexpr int per = int(sizeof(V) / sizeof(T));
#pragma unroll
    for (int k = 0; k < count; k += per) {
      V vector;
      __builtin_memcpy(&vector, from + k, sizeof(vector));
      V* const p = reinterpret_cast<V*>(to + k);
      hint == CacheHint::streaming ? __stcs(p, vector) : __stcg(p, vector);
    }
  }
}

// Byte offset of element i of a walk.
__device__ __forceinline__ int64_t offset_of(const Walk& walk, int64_t i) {
  int64_t offset = 0;
  for (int d = int(walk.ndim) - 1; d > 0; --d) {
    const DivMod at = divide(i, walk.shape[d], walk.reciprocal[d]);
    offset += at.remainder * walk.stride[d];
    i = at.quotient;
  }
  return offset + i * walk.stride[0];
}

template <class P>
__device__ __forceinline__ P element(const Source& source, int64_t i) {
  const char* p = static_cast<const char*>(source.data);
  return *reinterpret_cast<const P*>(
      p + (source.walk ? offset_of(*source.walk, i) : i * int64_t(sizeof(P))));
}

// The part of a list that contains `at`: the last i with starts[i] <= at. Requires starts[0] <= at.
__device__ __forceinline__ int find(const int64_t* starts, int count, int64_t at) {
  int low = 0;
  for (int high = count; high - low > 1;) {
    const int middle = (low + high) / 2;
    (starts[middle] <= at ? low : high) = middle;
  }
  return low;
}

// The same for the index of the calling block, by whole warps: the lanes probe as many places at once,
// so that 1000 parts take two dependent reads instead of ten.
__device__ __forceinline__ int find_block(const int64_t* starts, int count) {
  constexpr int lanes = 32;
  const int lane = int(threadIdx.x) % lanes;
  int low = 0;
  for (int high = count; high - low > 1;) {
    const int apart = ceil_div(high - low, lanes), own = low + lane * apart;
    const bool begun = own < high && starts[own] <= int64_t(blockIdx.x);
    low += (__popc(__ballot_sync(0xffffffffu, begun)) - 1) * apart;
    high = low + apart < high ? low + apart : high;
  }
  return low;
}

}  // namespace fastopt::cuda
