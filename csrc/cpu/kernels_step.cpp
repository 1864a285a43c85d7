// The loops of steps, norms and scaling, for one instruction set; tile.hpp explains the unnamed
// namespace.
#include "cpu/kernels.hpp"

#include "cpu/tile.hpp"
#include "rules/norms.hpp"
#include "rules/update.hpp"

namespace fastopt::cpu {
namespace {

// ---- steps ----

inline constexpr int64_t kAlignFrom = 8192;  // elements; below, an extra loop costs more than it gains

// A function of this file: taking the address of prepare() itself would emit it as a weak symbol.
template <class Rule, class F>
void prepare_here(const Hyper& h, int64_t step, Constants& out) {
  prepare<Rule, F>(h, step, out);
}

// The step on n values. The constants are copied and the pointers are separate, so that the compiler
// knows that no store changes them.
template <GradOps ops, class Rule, class F>
void apply(const Update<Rule, F> u, F clip, F* __restrict w, const F* __restrict g, F* const* states,
           int64_t n) {
  F* __restrict a = states[0], * __restrict b = states[1], * __restrict c = states[2];
  const auto all = [=](int64_t count) FASTOPT_INLINE {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      F s[kMaxSlots] = {};
      if constexpr (Rule::slots > 0) s[0] = a[i];
      if constexpr (Rule::slots > 1) s[1] = b[i];
      if constexpr (Rule::slots > 2) s[2] = c[i];
      w[i] = u.step(ops, w[i], g[i], s, clip);
      if constexpr (Rule::slots > 0) a[i] = s[0];
      if constexpr (Rule::slots > 1) b[i] = s[1];
      if constexpr (Rule::slots > 2) c[i] = s[2];
    }
  };
  const int64_t tiles = n / kTile * kTile;  // of which the compiler knows that no values are left over
  n == tiles ? all(tiles) : all(n);
}

// A rule on one tensor, and the loop for the operations on its gradient. The loop is called through a
// pointer: inlined for each storage type, such loops took two thirds of this file's compile time and
// code size. (SGD in bfloat16, which computes least per tile, took 0.9 times as long.)
template <class Rule, class F>
struct Step {
  const Update<Rule, F>& update;
  const StepTensor& tensor;
  const F clip = F(tensor.clip);
  decltype(&apply<GradOps::none, Rule, F>) const loop = loop_for(update.grad_ops(clip));

  void operator()(F* w, const F* g, F* const* states, int64_t n) const {
    loop(update, clip, w, g, states, n);
  }

  static auto loop_for(GradOps ops) {
    switch (ops) {
      case GradOps::none:
        return apply<GradOps::none, Rule, F>;
      case GradOps::scale_clip:
        return apply<GradOps::scale_clip, Rule, F>;
      case GradOps::full:
        break;
    }
    return apply<GradOps::full, Rule, F>;
  }
};

// Prefetches what the step on a later tile will read. Square roots and divisions fill the CPU's
// out-of-order window, so loads are issued only when they are done. On a Xeon with AVX-512, Adam on
// 2^22 to 2^24 elements took 1.05 to 1.4 times as long without this. In cache it would cost about 10 %.
template <int slots, class P, class S>
__attribute__((noinline)) void prefetch_step(const StepTensor& t, int64_t i, int n) {
  asm volatile("");  // otherwise the compiler sees no effect and drops the call
  prefetch_ahead<P>(t.param, i, n);
  prefetch_ahead<P>(t.grad.data, i, n);
  for (int k = 0; k < slots; ++k) prefetch_ahead<S>(t.state[k], i, n);
}

template <class Rule, class F>
void step_range(const Step<Rule, F>& step, int64_t begin, int64_t end) {
  const StepTensor& t = step.tensor;
  F* states[kMaxSlots] = {};
  for (int k = 0; k < Rule::slots; ++k) states[k] = static_cast<F*>(t.state[k]) + begin;
  step(static_cast<F*>(t.param) + begin, static_cast<const F*>(t.grad.data) + begin, states,
       end - begin);
}

// Aligned, contiguous arrays of the compute type: a single loop over all of them, which starts on a
// cache line. Large arrays often have the same offset from a cache line, and then no vector crosses
// one. On AMD this matters if the distances between arrays (64 MiB and a page, as NumPy's large arrays
// may have) make their lines conflict, apparently in the way predictor: on a Zen 4 Adam took 1.15
// to 1.3 times as long there without this, 1.03 to 1.07 with it.
template <class Rule, class F>
void step_direct(const Step<Rule, F>& step, int64_t begin, int64_t end, bool prefetches) {
  const auto start = reinterpret_cast<uintptr_t>(static_cast<F*>(step.tensor.param) + begin);
  const int64_t head = int64_t(-start % kCacheLine / sizeof(F));
  const int64_t body = end - begin < kAlignFrom ? begin : begin + head;
  step_range(step, begin, body);
  if (!prefetches) return step_range(step, body, end);
  each_tile<F>(body, end, [&](int64_t i, int n) {
    prefetch_step<Rule::slots, F, F>(step.tensor, i, n);
    step_range(step, i, i + n);
  });
}

// All other arrays, tile by tile: load, compute, store.
template <class P, class S, class Rule, class F>
void step_tiles(const Step<Rule, F>& step, int64_t begin, int64_t end, bool prefetches) {
  const StepTensor& t = step.tensor;
  Tile<P> params, grads;
  Tile<S, kTileOf<P>> states[kMaxSlots];
  each_tile<P>(begin, end, [&](int64_t i, int n) FASTOPT_INLINE {
    if (prefetches) prefetch_step<Rule::slots, P, S>(t, i, n);
    F* w = params.open(t.param, i, n);
    const F* g = grads.open(t.grad, i, n);
    F* s[kMaxSlots] = {};
    for (int k = 0; k < Rule::slots; ++k) s[k] = states[k].open(t.state[k], i, n);

    step(w, g, s, n);

    params.close(w, t.param, i, n);
    for (int k = 0; k < Rule::slots; ++k) states[k].close(s[k], t.state[k], i, n);
  });
}

template <class Rule, class F>
bool direct(const StepTensor& t) {
  bool all = !t.grad.walk && aligned(t.param, alignof(F)) && aligned(t.grad.data, alignof(F));
  for (int k = 0; k < Rule::slots; ++k) all = all && aligned(t.state[k], alignof(F));
  return all;
}

template <class Rule, class P, class S>
void step(const Constants& constants, const StepTensor& t, int64_t begin, int64_t end,
          bool prefetches) {
  using F = Compute<P>;
  const Step<Rule, F> step{prepared<Rule, F>(constants), t};
  if constexpr (std::is_same_v<P, F>)
    if (direct<Rule, F>(t)) return step_direct(step, begin, end, prefetches);
  step_tiles<P, S>(step, begin, end, prefetches);
}

// ---- norms and scaling ----

template <class Norm, class F>
void add_values(const F* x, int64_t n, int lane, double* lanes) {
  int64_t i = 0;
  for (; i < n && lane % kNormLanes; ++i, ++lane)
    lanes[lane % kNormLanes] = Norm::join(lanes[lane % kNormLanes], Norm::part(x[i]));
  double sums[kNormLanes];
  memcpy(sums, lanes, sizeof(sums));
  for (; i + kNormLanes <= n; i += kNormLanes)
#pragma omp simd
    for (int l = 0; l < kNormLanes; ++l) sums[l] = Norm::join(sums[l], Norm::part(x[i + l]));
  memcpy(lanes, sums, sizeof(sums));
  for (int l = 0; i < n; ++i, ++l) lanes[l] = Norm::join(lanes[l], Norm::part(x[i]));
}

template <class Norm, class P>
void norm(const NormTensor& t, int64_t begin, int64_t end, int lane, double* lanes) {
  using F = Compute<P>;
  const ScaleClamp<F> scale_clamp(t.scale, t.limit);
  if constexpr (std::is_same_v<P, F>)
    if (!t.data.walk && aligned(t.data.data, alignof(F)) && scale_clamp.is_identity())
      return add_values<Norm>(static_cast<const F*>(t.data.data) + begin, end - begin, lane, lanes);
  Tile<P> tile;
  each_tile<P>(begin, end, [&](int64_t i, int n) FASTOPT_INLINE {
    const F* x = tile.open(t.data, i, n);
    F* scaled = tile.scratch();
#pragma omp simd
    for (int j = 0; j < n; ++j) scaled[j] = scale_clamp(x[j]);
    add_values<Norm>(scaled, n, int((lane + (i - begin)) % kNormLanes), lanes);
  });
}

template <class P>
void scale(const ScaleTensor& t, double limit, int64_t begin, int64_t end) {
  using F = Compute<P>;
  const F most = F(limit), coef = F(t.coef);
  Tile<P> tile;
  each_tile<P>(begin, end, [&](int64_t i, int n) FASTOPT_INLINE {
    F* x = tile.open(t.data, i, n);
#pragma omp simd
    for (int j = 0; j < n; ++j) x[j] = clamp(x[j], most) * coef;
    tile.close(x, t.data, i, n);
  });
}

// ---- the table ----

template <template <class> class R, class P, class S>
constexpr StepKernel step_kernel() {
  using F = Compute<P>;
  return {prepare_here<R<F>, F>, step<R<F>, P, S>};
}

template <class Norm>
constexpr void fill_norms(NormKernel (&row)[kDTypes]) {
  row[0] = {norm<Norm, Half>};
  row[1] = {norm<Norm, BFloat16>};
  row[2] = {norm<Norm, float>};
  row[3] = {norm<Norm, double>};
}

template <template <class> class R>
constexpr void fill_steps(StepKernel (&row)[kStorages]) {
  row[0] = step_kernel<R, Half, Half>();
  row[1] = step_kernel<R, BFloat16, BFloat16>();
  row[2] = step_kernel<R, float, float>();
  row[3] = step_kernel<R, double, double>();
  row[4] = step_kernel<R, Half, float>();
  row[5] = step_kernel<R, BFloat16, float>();
}

template <template <class> class... R>
constexpr StepKernels table(List<R...>) {
  StepKernels k{{}, {}, {{scale<Half>}, {scale<BFloat16>}, {scale<float>}, {scale<double>}}};
  int rule = 0;
  (fill_steps<R>(k.step[rule++]), ...);
  fill_norms<Norm2>(k.norm[int(ClipNorm::two)]);
  fill_norms<Norm1>(k.norm[int(ClipNorm::one)]);
  fill_norms<NormMax>(k.norm[int(ClipNorm::max)]);
  return k;
}

}  // namespace

constexpr StepKernels FASTOPT_TABLE(steps_, FASTOPT_ISA) = table(RuleList{});

}  // namespace fastopt::cpu
