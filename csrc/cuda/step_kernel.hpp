// The element-wise part of a step. A thread block processes a chunk of one tensor: a head up to a
// 16-byte boundary of the parameter, vectors of 16 bytes, and a tail. Each thread has one vector of
// each array in flight, or two if the rule has no state. Arrays whose distance from such a boundary
// differs are processed element by element, as are strided gradients.
#pragma once

#include "cuda/step.hpp"

namespace fastopt::cuda {
namespace {

// Minimum of resident blocks. Without it, ptxas limits registers to fit more blocks, and spills.
template <class P, class S, int slots>
constexpr int kMinBlocksPerSm = sizeof(P) > 4 ? 2 : 4 - slots / 3 * (sizeof(S) > sizeof(P) ? 2 : 1);

template <class F>
__device__ __forceinline__ F clip_of(const Clip& clip) {
  if constexpr (sizeof(F) == sizeof(double))
    return clip.wide;
  else
    return clip.narrow;
}

template <class Rule, class P, class S>
struct StepBody {
  using F = Compute<P>;

  const Update<Rule, F> update;  // in registers, because no store can change it
  const GradOps ops;
  const F clip;
  P* const param;
  const Source grad;
  S* state[kMaxSlots];

  __device__ __forceinline__ bool vectors_from(int64_t i) const {
    bool all = !grad.walk && aligned(static_cast<const P*>(grad.data) + i);
    for (int k = 0; k < Rule::slots; ++k) all = all && aligned(state[k] + i);
    return all;
  }

  // Adjacent elements of each array, as stored.
  template <int count>
  struct Part {
    P w[count], g[count];
    S s[Rule::slots + 1][count];
  };

  template <int count>
  __device__ __forceinline__ void read(int64_t i, Part<count>& part) const {
    load(param + i, part.w);
    if constexpr (count == 1)
      part.g[0] = element<P>(grad, i);
    else
      load(static_cast<const P*>(grad.data) + i, part.g);
#pragma unroll
    for (int k = 0; k < Rule::slots; ++k) load(state[k] + i, part.s[k]);
  }

  template <int count>
  __device__ __forceinline__ void compute_and_store(int64_t i, Part<count>& part) const {
    auto& [w, g, s] = part;
    // Whether there is work besides the rule is tested once per vector: tested for each element, it
    // would cost its instructions even where nothing is done.
    F value[count], seen[count];
    const auto each = [](auto&& visit) {
#pragma unroll
      for (int e = 0; e < count; ++e) visit(e);
    };
    each([&](int e) { value[e] = widen(w[e]), seen[e] = widen(g[e]); });
    if (ops != GradOps::none)
      each([&](int e) { seen[e] = update.effective_gradient(ops, value[e], seen[e], clip); });
    each([&](int e) {
      F own[Rule::slots + 1];
#pragma unroll
      for (int k = 0; k < Rule::slots; ++k) own[k] = widen(s[k][e]);
      value[e] = update.apply_rule(value[e], seen[e], own);
#pragma unroll
      for (int k = 0; k < Rule::slots; ++k) s[k][e] = narrow<S>(own[k]);
    });
    if (ops == GradOps::full) each([&](int e) { value[e] = update.around.shrink(value[e]); });
    each([&](int e) { w[e] = narrow<P>(value[e]); });
    store(param + i, w);
#pragma unroll
    for (int k = 0; k < Rule::slots; ++k) store(state[k] + i, s[k]);
  }

  // Processes `count` elements from i on, and further parts at a distance of a block's vectors. All
  // loads are issued before the first use.
  template <int count, int parts = 1>
  __device__ __forceinline__ void process(int64_t i) const {
    Part<count> part[parts];
#pragma unroll
    for (int p = 0; p < parts; ++p) read(i + p * kStepThreads * count, part[p]);
#pragma unroll
    for (int p = 0; p < parts; ++p) compute_and_store(i + p * kStepThreads * count, part[p]);
  }

  // Processes elements [before, end): from `first` on as vectors, the rest one by one.
  __device__ __forceinline__ void process_chunk(int64_t before, int64_t first, int64_t end) const {
    constexpr int count = kPerVector<P>;
    int64_t from = before, to = before;  // the range of the vectors
    if (first < end && vectors_from(first)) {
      from = first;
      to = end - (end - first) % count;
      constexpr int apart = kStepThreads * count;
      const int span = int(to - first);
      int own = int(threadIdx.x) * count;
      if constexpr (Rule::slots == 0)
#pragma unroll 1
        for (; own + apart < span; own += 2 * apart) process<count, 2>(first + own);
#pragma unroll 1
      for (; own < span; own += apart) process<count>(first + own);
    }
    const int64_t head = from - before, left = head + end - to;
    for (int64_t j = threadIdx.x; j < left; j += kStepThreads)
      process<1>(j < head ? before + j : to + j - head);
  }
};

template <class Rule, class P, class S>
__global__ void __launch_bounds__(kStepThreads, kMinBlocksPerSm<P, S, Rule::slots>)
    step_chunks(const FASTOPT_GRID_CONSTANT StepTables t,
                const FASTOPT_GRID_CONSTANT HostConstants host, int first, int count) {
  grid_dependency_wait();
  using F = Compute<P>;
  const bool from_host = host.step > 0, skip = !from_host && t.control->skip;
  if (from_host && blockIdx.x == 0 && threadIdx.x == 0) t.control->counts.step = host.step;
  const int own = first + find_block(t.chunks + first, count);
  const StepEntry& e = t.entries[own];
  const ChunkLayout layout(e.param, sizeof(P), t.vectors);
  const int64_t chunk = int64_t(blockIdx.x) - t.chunks[own];
  const int64_t start = layout.head + chunk * layout.chunk;
  const int64_t end = start + layout.chunk < e.size ? start + layout.chunk : e.size;
  const auto update =
      from_host ? prepared<Rule, F>(host.constants[e.run]) : prepared<Rule, F>(t.constants[e.run]);
  const F clip = from_host ? F(1) : clip_of<F>(t.clips[e.index]);
  StepBody<Rule, P, S> body{
      update, update.grad_ops(clip), clip, static_cast<P*>(e.param), t.grads[e.index], {}};
  for (int k = 0; k < Rule::slots; ++k) body.state[k] = static_cast<S*>(e.state[k]);
  if (!skip) body.process_chunk(chunk == 0 ? 0 : start, start, end);
}

template <template <class> class Rule, class P, class S>
void launch_step(const Place& place, const StepTables& t, const HostConstants& host, int first,
                 int count, int64_t chunks) {
  launch(place, step_chunks<Rule<Compute<P>>, P, S>, chunks, kStepThreads, t, host, first, count);
}

// One entry per rule.
template <class P, class S, class L>
struct StepRow;
template <class P, class S, template <class> class... Rule>
struct StepRow<P, S, List<Rule...>> {
  static constexpr StepLaunch launches[] = {launch_step<Rule, P, S>...};
};

}  // namespace
}  // namespace fastopt::cuda
