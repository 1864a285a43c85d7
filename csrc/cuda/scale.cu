#include "cuda/scale.hpp"

#include <vector>

#include "cuda/device_buffer.hpp"
#include "cuda/vectors.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 8192;

struct ScaleTables {
  const ScaleTensor* tensors;
  const int64_t* chunks;  // the first chunk of each tensor
  int64_t count;
};

template <int count, class P>
__device__ __forceinline__ void scale_at(P* data, Compute<P> limit, Compute<P> coef) {
  P own[count];
  load(data, own);
#pragma unroll
  for (int e = 0; e < count; ++e) own[e] = narrow<P>(clamp(widen(own[e]), limit) * coef);
  store(data, own);
}

template <class P>
__device__ void scale_chunk(const ScaleTensor& t, double limit, int64_t begin, int64_t end) {
  constexpr int count = kPerVector<P>;
  using F = Compute<P>;
  P* const data = static_cast<P*>(t.data);
  const F most = F(limit), coef = F(t.coef);
  int64_t i = begin;
  if (aligned(data + begin)) {
    i += int64_t(threadIdx.x) * count;
    for (; i + count <= end; i += kThreads * count) scale_at<count>(data + i, most, coef);
    i = begin + (end - begin) / count * count;
  }
  for (i += threadIdx.x; i < end; i += kThreads) scale_at<1>(data + i, most, coef);
}

__global__ void __launch_bounds__(kThreads) scale_list(const ScaleTables t, double limit) {
  grid_dependency_wait();
  const int own = find_block(t.chunks, int(t.count));
  const ScaleTensor& tensor = t.tensors[own];
  const int64_t begin = (int64_t(blockIdx.x) - t.chunks[own]) * kChunk;
  const int64_t end = begin + kChunk < tensor.size ? begin + kChunk : tensor.size;
  switch (tensor.dtype) {
    case DType::float16:
      return scale_chunk<Half>(tensor, limit, begin, end);
    case DType::bfloat16:
      return scale_chunk<BFloat16>(tensor, limit, begin, end);
    case DType::float32:
      return scale_chunk<float>(tensor, limit, begin, end);
    case DType::float64:
      return scale_chunk<double>(tensor, limit, begin, end);
  }
}

}  // namespace

void scale(const Place& place, const ScaleTensor* tensors, int64_t count, double limit) {
  const DeviceGuard current(place);
  std::vector<ScaleTensor> list;
  std::vector<int64_t> chunks;
  int64_t total = 0;
  for (const ScaleTensor* t = tensors; t < tensors + count; ++t) {
    if (t->size == 0 || (t->coef == 1.0 && limit == kNoLimit)) continue;
    list.push_back(*t);
    chunks.push_back(total);
    total += ceil_div(t->size, kChunk);
  }
  if (list.empty()) return;
  const int64_t listed = int64_t(list.size());
  ScaleTables tables{nullptr, nullptr, listed};
  const DeviceBuffer buffer = carve(place, Lifetime::call, [&](Arena& arena) {
    tables.tensors = arena.allocate<ScaleTensor>(listed);
    tables.chunks = arena.allocate<int64_t>(listed);
  });
  copy_list_to_device(place, tables.tensors, list);
  copy_list_to_device(place, tables.chunks, chunks);
  launch(place, scale_list, total, kThreads, tables, limit);
}

}  // namespace fastopt::cuda
