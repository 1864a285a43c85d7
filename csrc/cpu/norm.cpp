// rules/norms.hpp defines the tree; each thread computes a range of its groups.
#include "cpu/norm.hpp"

#include <vector>

#include "cpu/gather_buffer.hpp"
#include "cpu/isa_dispatch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/work_split.hpp"
#include "rules/divide.hpp"
#include "rules/norms.hpp"

namespace fastopt::cpu {
namespace {

// A group of blocks is the unit of work and one value in memory: 256 KiB of float32, and 16 bytes of
// scratch for a million parameters.
constexpr int kGroup = 16;
constexpr int64_t kGroupSize = int64_t(kGroup) * kNormBlock;
static_assert((kGroup & (kGroup - 1)) == 0, "groups must be whole subtrees");

// The position of a thread in the sequence.
struct Cursor {
  const NormTensor* tensor;
  int64_t at = 0;  // in this tensor
  GatherBuffer gathered;

  Cursor(const NormTensor* first, int64_t element) : tensor(first) {
    for (at = element; at > 0 && at >= tensor->size; ++tensor) at -= tensor->size;
  }
};

using NormKernels = NormKernel[kDTypes];

template <class Norm>
double block(Cursor& c, int64_t size, const NormKernels& kernels) {
  double lanes[kNormLanes] = {};
  for (int64_t done = 0; done < size;) {
    const int64_t n = std::min(size - done, c.tensor->size - c.at);
    const NormTensor& t = *c.tensor;
    c.gathered.each(t.data, int64_t(bytes_of(t.dtype)), t.size, c.at, c.at + n,
                    [&](const Source& data, int64_t begin, int64_t end) {
                      NormTensor part = t;
                      part.data = data;
                      const int lane = int((done + begin - c.at) % kNormLanes);
                      kernels[int(t.dtype)].add(part, begin, end, lane, lanes);
                    });
    done += n;
    c.at += n;
    if (c.at == c.tensor->size && done < size) ++c.tensor, c.at = 0;
  }
  return join_lanes<Norm>(lanes);
}

template <class Norm>
double group(Cursor& c, int64_t size, const NormKernels& kernels) {
  double sums[kGroup];
  int count = 0;
  for (int64_t done = 0; done < size; done += kNormBlock)
    sums[count++] = block<Norm>(c, std::min<int64_t>(kNormBlock, size - done), kernels);
  return join_tree<Norm>(sums, count);
}

template <class Norm>
double reduce(const NormTensor* tensors, int64_t count, ClipNorm kind) {
  int64_t elements = 0, bytes = 0;
  for (int64_t i = 0; i < count; ++i) {
    elements += tensors[i].size;
    bytes += tensors[i].size * int64_t(bytes_of(tensors[i].dtype));
  }
  if (elements == 0) return 0.0;
  const NormKernels& table = kernels().steps.norm[int(kind)];
  const int64_t groups = ceil_div(elements, kGroupSize);
  std::vector<double> sums(groups);
  on_threads(threads_for(bytes), [&](int thread, int threads) {
    const int64_t first = ThreadSlice::cut(groups, thread, threads);
    const int64_t last = ThreadSlice::cut(groups, thread + 1, threads);
    if (first == last) return;
    Cursor cursor(tensors, first * kGroupSize);
    for (int64_t g = first; g < last; ++g)
      sums[g] = group<Norm>(cursor, std::min(kGroupSize, elements - g * kGroupSize), table);
  });
  return join_tree<Norm>(sums.data(), groups);
}

double norm2(const NormTensor* tensors, int64_t count) {
  Norm2State state;
  state.sum = reduce<Norm2>(tensors, count, ClipNorm::two);
  const bool doubles = std::any_of(tensors, tensors + count,
                                   [](const NormTensor& t) { return t.dtype == DType::float64; });
  if (!doubles || !state.out_of_range()) return state.norm(doubles);
  state.max_abs = reduce<NormMax>(tensors, count, ClipNorm::max);
  if (!state.can_rescale()) return state.norm(doubles);
  std::vector<NormTensor> again(tensors, tensors + count);
  for (NormTensor& t : again) {
    t.scale = rescaled(t.scale, t.dtype, state.rescale());
    t.limit *= state.rescale();
  }
  state.rescaled_sum = reduce<Norm2>(again.data(), count, ClipNorm::two);
  return state.norm(doubles);
}

}  // namespace

double norm(const Place&, const NormTensor* tensors, int64_t count, ClipNorm kind) {
  const IeeeMode mode;  // for the top of the tree, which this thread computes
  switch (kind) {
    case ClipNorm::one:
      return Norm1::whole(reduce<Norm1>(tensors, count, kind));
    case ClipNorm::max:
      return NormMax::whole(reduce<NormMax>(tensors, count, kind));
    case ClipNorm::two:
      break;
  }
  return norm2(tensors, count);
}

}  // namespace fastopt::cpu
