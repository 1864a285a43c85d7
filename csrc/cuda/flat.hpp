// Flat arrays, a few adjacent elements per thread: moved as vectors where alignment allows it.
#pragma once

#include "cuda/vectors.hpp"

namespace fastopt::cuda {

// Calls visit<P>() with the stored type.
template <class Visit>
void with_dtype(DType dtype, Visit&& visit) {
  switch (dtype) {
    case DType::float16:
      return visit.template operator()<Half>();
    case DType::bfloat16:
      return visit.template operator()<BFloat16>();
    case DType::float32:
      return visit.template operator()<float>();
    case DType::float64:
      return visit.template operator()<double>();
  }
}

// Elements [i, i + count) of an array of n. `whole` says that all of them exist and can be moved as
// vectors; callers that move several arrays determine it once. Elements beyond the end are read as
// zero.
template <int count, CacheHint hint = CacheHint::normal, class P>
__device__ __forceinline__ void load_part(const void* data, int64_t i, int64_t n, bool whole,
                                          P (&to)[count]) {
  const P* const from = static_cast<const P*>(data) + i;
  if (whole) return load<count, hint>(from, to);
#pragma unroll
  for (int k = 0; k < count; ++k) to[k] = i + k < n ? from[k] : P{};
}

template <int count, CacheHint hint = CacheHint::normal, class P>
__device__ __forceinline__ void store_part(void* data, int64_t i, int64_t n, bool whole,
                                           const P (&from)[count]) {
  P* const to = static_cast<P*>(data) + i;
  if (whole) return store<count, hint>(to, from);
#pragma unroll
  for (int k = 0; k < count; ++k)
    if (i + k < n) to[k] = from[k];
}

// Maximum number of blocks for kernels whose blocks loop until all work is done: enough to keep all
// multiprocessors evenly busy.
inline int64_t max_grid_blocks(const Place& place) {
  return device_attribute(place, cudaDevAttrMultiProcessorCount) * int64_t(16);
}

}  // namespace fastopt::cuda
