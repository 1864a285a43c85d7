// Norms with the tree of rules/norms.hpp. Sixteen threads hold the lanes of a tree block, and sixteen
// tree blocks are a group, which is a thread block; a second kernel joins the groups of each sequence.
#include "cuda/norm.hpp"

#include <algorithm>

#include "core/float_mode.hpp"
#include "cuda/vectors.hpp"
#include "cuda/walk_table.hpp"
#include "rules/around.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kThreads = kGroup * kNormLanes;

// The plain pass, or the two additional passes that squares of doubles may need.
enum class NormPass : uint8_t { plain, max_abs, rescaled };

// ---- one tensor's part of a lane ----

template <class Norm, class P>
struct LaneSum {
  static constexpr int kInFlight = 64 / int(sizeof(P));  // loads of a thread before their first use

  const Source& source;
  ScaleClamp<Compute<P>> scale_clamp;
  double sum;
  bool finite;

  // Most gradients are used unchanged: scaling and clamping them anyway would cost as much as
  // everything else.
  template <bool scaled>
  __device__ __forceinline__ void add(Compute<P> x) {
    finite = finite && fastopt::is_finite(scaled ? x * scale_clamp.scale : x);
    sum = Norm::join(sum, Norm::part(scaled ? scale_clamp(x) : x));
  }

  // Adds `n` elements, kInFlight at most, after loading all of them.
  template <bool whole, bool scaled>
  __device__ __forceinline__ void add_ahead(const P* data, int n) {
    P own[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) own[k] = whole || k < n ? data[k * kNormLanes] : P{};
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      if (whole || k < n) add<scaled>(widen(own[k]));
  }

  // Adds every kNormLanes-th element of [i, end).
  template <bool scaled>
  __device__ __forceinline__ void add_range(int64_t i, int64_t end) {
    if (source.walk) {
      for (; i < end; i += kNormLanes) add<scaled>(widen(element<P>(source, i)));
      return;
    }
    const P* data = static_cast<const P*>(source.data) + i;
    int left = int(ceil_div(end - i, kNormLanes));  // fits in int, because this is within a block
    for (; left >= kInFlight; left -= kInFlight, data += kInFlight * kNormLanes)
      add_ahead<true, scaled>(data, kInFlight);
    if (left > 0) add_ahead<false, scaled>(data, left);
  }
};

template <class Norm, class P>
__device__ __forceinline__ void add_source(const Source& source, const NormScaleClamp& scale_clamp,
                                           int64_t i, int64_t end, double& sum, bool& finite) {
  LaneSum<Norm, P> lanes{source, {scale_clamp.scale, scale_clamp.limit}, sum, true};
  lanes.scale_clamp.is_identity() ? lanes.template add_range<false>(i, end)
                                  : lanes.template add_range<true>(i, end);
  sum = lanes.sum;
  finite = lanes.finite;
}

template <class Norm>
__device__ __forceinline__ bool add_source(DType dtype, const Source& source,
                                           const NormScaleClamp& scale_clamp, int64_t i, int64_t end,
                                           double& sum) {
  bool finite = true;
  switch (dtype) {
    case DType::float16:
      add_source<Norm, Half>(source, scale_clamp, i, end, sum, finite);
      break;
    case DType::bfloat16:
      add_source<Norm, BFloat16>(source, scale_clamp, i, end, sum, finite);
      break;
    case DType::float32:
      add_source<Norm, float>(source, scale_clamp, i, end, sum, finite);
      break;
    case DType::float64:
      add_source<Norm, double>(source, scale_clamp, i, end, sum, finite);
      break;
  }
  return finite;
}

// ---- a block, which may span several tensors ----

template <class Norm, NormPass pass>
__device__ __forceinline__ double lane_sum(const NormTables& t, const Sequence& q, int64_t begin,
                                           int64_t end, int lane) {
  double sum = 0.0;
  const double factor = t.states[&q - t.sequences].rescale();
  int i = q.first + find(t.starts + q.first, q.count, begin);
  for (int64_t at = begin; at < end; ++i) {
    const NormEntry& e = t.entries[i];
    const int64_t from = at - e.start, rest = e.size - from;
    const int64_t n = rest < end - at ? rest : end - at;
    NormScaleClamp scale_clamp = t.scale_clamps[e.run];
    if constexpr (pass == NormPass::rescaled) {
      scale_clamp.scale = rescaled(scale_clamp.scale, e.dtype, factor);
      scale_clamp.limit *= factor;
    }
    const int64_t first = (lane - (at - begin)) & (kNormLanes - 1);
    const bool finite =
        add_source<Norm>(e.dtype, t.sources[e.index], scale_clamp, from + first, from + n, sum);
    if (pass == NormPass::plain && !finite && t.nonfinite)
      atomicMin(reinterpret_cast<long long*>(t.nonfinite), static_cast<long long>(e.index));
    at += n;
  }
  return sum;
}

// At most four blocks per multiprocessor. Without this bound ptxas gives a thread so few registers
// that it spills.
template <class Norm, NormPass pass>
__global__ void __launch_bounds__(kThreads, 4) sum_groups(const NormTables t) {
  grid_dependency_wait();
  __shared__ double sums[kGroup];
  const int s = find_block(t.groups, t.sequence_count);
  const Sequence& q = t.sequences[s];
  if (pass != NormPass::plain && !(q.doubles && t.states[s].out_of_range())) return;
  if (pass == NormPass::rescaled && !t.states[s].can_rescale()) return;
  const int lane = int(threadIdx.x) % kNormLanes, block = int(threadIdx.x) / kNormLanes;
  const int64_t group = (int64_t(blockIdx.x) - q.group) * kGroupSize;
  const int64_t begin = group + block * int64_t(kNormBlock);
  const int64_t end = begin + kNormBlock < q.elements ? begin + kNormBlock : q.elements;
  double sum = begin < end ? lane_sum<Norm, pass>(t, q, begin, end, lane) : 0.0;
#pragma unroll
  for (int half = kNormLanes / 2; half > 0; half /= 2) {
    const double other = __shfl_down_sync(0xffffffffu, sum, unsigned(half), kNormLanes);
    if (lane < half) sum = Norm::join(sum, other);
  }
  if (lane == 0) sums[block] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    const int64_t blocks = ceil_div(q.elements - group, kNormBlock);
    t.parts[blockIdx.x] = join_tree<Norm>(sums, blocks < kGroup ? blocks : kGroup);
  }
}

// ---- a sequence ----

constexpr int kJoinThreads = 256;

// Joins n values: first a subtree per thread, then the threads' results; thread 0 returns the result.
// Subtrees of a power of two leave the tree unchanged.
template <class Norm>
__device__ __forceinline__ double join_all(double* values, int64_t n) {
  __shared__ double joined[kJoinThreads];
  int64_t own = 1;
  while (own * kJoinThreads < n) own *= 2;
  const int64_t begin = threadIdx.x * own, rest = n - begin;
  if (rest > 0) joined[threadIdx.x] = join_tree<Norm>(values + begin, rest < own ? rest : own);
  const int64_t count = ceil_div(n, own);
  for (int distance = 1; distance < count; distance *= 2) {
    __syncthreads();
    if (threadIdx.x % (2 * distance) == 0 && threadIdx.x + distance < count)
      joined[threadIdx.x] = Norm::join(joined[threadIdx.x], joined[threadIdx.x + distance]);
  }
  return threadIdx.x == 0 ? joined[0] : 0.0;  // the other threads may be ahead
}

template <class Norm, NormPass pass>
__global__ void __launch_bounds__(kJoinThreads) join_groups(const NormTables t) {
  grid_dependency_wait();
  const Sequence& q = t.sequences[blockIdx.x];
  Norm2State& state = t.states[blockIdx.x];
  if (pass != NormPass::plain && !(q.doubles && state.out_of_range())) return;
  if (pass == NormPass::rescaled && !state.can_rescale()) return;
  const int64_t groups = ceil_div(q.elements, kGroupSize);
  const double all = groups > 0 ? join_all<Norm>(t.parts + q.group, groups) : 0.0;
  if (threadIdx.x != 0) return;
  if constexpr (pass == NormPass::plain) state = {all, 0.0, 0.0};
  if constexpr (pass == NormPass::max_abs) state.max_abs = all;
  if constexpr (pass == NormPass::rescaled) state.rescaled_sum = all;
}

template <class Norm, NormPass pass>
void queue_pass(const Place& place, const NormTables& t) {
  launch(place, sum_groups<Norm, pass>, t.group_count, kThreads, t);
  launch(place, join_groups<Norm, pass>, t.sequence_count, kJoinThreads, t);
}

}  // namespace

void queue_norms(const Place& place, const NormPlan& plan, const NormTables& t, ClipNorm kind) {
  switch (kind) {
    case ClipNorm::one:
      return queue_pass<Norm1, NormPass::plain>(place, t);
    case ClipNorm::max:
      return queue_pass<NormMax, NormPass::plain>(place, t);
    case ClipNorm::two:
      break;
  }
  queue_pass<Norm2, NormPass::plain>(place, t);
  if (std::ranges::none_of(plan.sequences, &Sequence::doubles)) return;
  queue_pass<NormMax, NormPass::max_abs>(place, t);
  queue_pass<Norm2, NormPass::rescaled>(place, t);
}

// ---- a norm without a step ----

double norm(const Place& place, const NormTensor* tensors, int64_t count, ClipNorm kind) {
  const IeeeMode mode;  // for the arithmetic on the sum
  const DeviceGuard current(place);
  require_synchronizable(place);
  NormPlan plan;
  std::vector<Source> sources;
  plan.begin_sequence();
  for (int64_t i = 0; i < count; ++i) {
    plan.add(tensors[i].size, 0, tensors[i].dtype);
    sources.push_back(tensors[i].data);
  }
  WalkTable walks;
  for (Source& source : sources) walks.add(source.walk);
  NormTables t;
  const Walk* walks_there = nullptr;
  const DeviceBuffer buffer = carve(place, Lifetime::call, [&](Arena& arena) {
    t = plan.lay_out(arena);
    t.sources = arena.allocate<Source>(count);
    t.scale_clamps = arena.allocate<NormScaleClamp>(1);
    walks_there = arena.allocate<Walk>(walks.count());
  });
  walks.upload(place, walks_there);
  plan.send_to(place, t);
  copy_list_to_device(place, t.sources, sources);
  copy_list_to_device(place, t.scale_clamps, std::vector<NormScaleClamp>{{1.0, kNoLimit}});
  queue_norms(place, plan, t, kind);
  Norm2State state;
  copy_to_host(place, &state, t.states, sizeof(state));
  return norm_of(state, kind, plan.sequences[0].doubles);
}

}  // namespace fastopt::cuda
