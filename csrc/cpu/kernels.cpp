// The loops, for one instruction set. Compiled once for each with FASTOPT_ISA naming it; see tile.hpp
// for what may not stand here.
#include "cpu/kernels.hpp"

#include "cpu/tile.hpp"
#include "rules/around.hpp"
#include "rules/norms.hpp"

namespace fastopt::cpu {
namespace {

inline int tile_at(int64_t i, int64_t end) { return end - i < kTile ? int(end - i) : kTile; }

// ---- steps ----

template <class Rule, class F>
struct StepConstants {
  Rule rule;
  Around<F> around;
};

template <class Rule, class F>
void prepare(const Hyper& h, int64_t step, Constants& out) {
  using C = StepConstants<Rule, F>;
  static_assert(sizeof(C) <= sizeof(out.bytes) && std::is_trivially_copyable_v<C>);
  const C constants{Rule(h, step), Around<F>(h)};
  memcpy(out.bytes, &constants, sizeof(constants));
}

// The gradient on its way to the rule: unscale, limit, clip, penalise. What is switched off costs a
// branch a tile; `out` may be g.
template <class F>
const F* shaped(const Around<F>& around, F clip, const F* g, const F* w, F* out, int n) {
  if (around.shape.acts()) {
#pragma omp simd
    for (int i = 0; i < n; ++i) out[i] = around.shape(g[i]);
    g = out;
  }
  if (clip != F(1)) {
#pragma omp simd
    for (int i = 0; i < n; ++i) out[i] = g[i] * clip;
    g = out;
  }
  if (around.penalises()) {
#pragma omp simd
    for (int i = 0; i < n; ++i) out[i] = around.penalise(g[i], w[i]);
    g = out;
  }
  return g;
}

// The rule itself, on a tile. Separate pointers, for the vectoriser's sake.
template <class Rule, class F>
void apply(const StepConstants<Rule, F>& c, F* __restrict w, const F* __restrict g, F* __restrict a,
           F* __restrict b, F* __restrict d, int n) {
  const Rule rule = c.rule;
  const F before = c.around.decay_before, after = c.around.decay_after;
#pragma GCC ivdep
  for (int i = 0; i < n; ++i) {
    F s[kMaxSlots] = {};
    if constexpr (Rule::slots > 0) s[0] = a[i];
    if constexpr (Rule::slots > 1) s[1] = b[i];
    if constexpr (Rule::slots > 2) s[2] = d[i];
    w[i] = rule(w[i] * before, g[i], s) * after;
    if constexpr (Rule::slots > 0) a[i] = s[0];
    if constexpr (Rule::slots > 1) b[i] = s[1];
    if constexpr (Rule::slots > 2) d[i] = s[2];
  }
}

template <class Rule, class P, class S>
void step(const Constants& constants, const StepTensor& t, int64_t begin, int64_t end) {
  using F = Compute<P>;
  const auto& c = *reinterpret_cast<const StepConstants<Rule, F>*>(constants.bytes);
  const F clip = F(t.clip);
  Tile<P> params, grads;
  Tile<S> states[kMaxSlots];
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = tile_at(i, end);
    F* w = params.open(t.param, i, n);
    F* s[kMaxSlots] = {};
    for (int k = 0; k < Rule::slots; ++k) s[k] = states[k].open(t.state[k], i, n);
    const F* g = grads.open(t.grad, i, n);
    g = shaped(c.around, clip, g, w, grads.scratch(), n);

    apply(c, w, g, s[0], s[1], s[2], n);
    if (c.around.shrinks()) {
#pragma omp simd
      for (int j = 0; j < n; ++j) w[j] = c.around.shrink(w[j]);
    }

    params.close(w, t.param, i, n);
    for (int k = 0; k < Rule::slots; ++k) states[k].close(s[k], t.state[k], i, n);
  }
}

// ---- norms and scaling ----

template <class Norm, class F>
void add_values(const F* x, int n, int lane, double* lanes) {
  int i = 0;
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
  const Shape<F> shape(t.scale, t.limit);
  Tile<P> tile;
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = tile_at(i, end);
    const F* x = tile.open(t.data, i, n);
    if (shape.acts()) {
      F* out = tile.scratch();
#pragma omp simd
      for (int j = 0; j < n; ++j) out[j] = shape(x[j]);
      x = out;
    }
    add_values<Norm>(x, n, int((lane + (i - begin)) % kNormLanes), lanes);
  }
}

template <class P>
void scale(const ScaleTensor& t, double limit, int64_t begin, int64_t end) {
  using F = Compute<P>;
  const F most = F(limit), coef = F(t.coef);
  Tile<P> tile;
  for (int64_t i = begin; i < end; i += kTile) {
    const int n = tile_at(i, end);
    F* x = tile.open(t.data, i, n);
#pragma omp simd
    for (int j = 0; j < n; ++j) x[j] = clamp(x[j], most) * coef;
    tile.close(x, t.data, i, n);
  }
}

// ---- the table ----

template <template <class> class R, class P, class S>
constexpr StepKernel step_kernel() {
  using F = Compute<P>;
  return {prepare<R<F>, F>, step<R<F>, P, S>};
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
constexpr Kernels table(const char* isa, List<R...>) {
  Kernels k{isa, {}, {}, {{scale<Half>}, {scale<BFloat16>}, {scale<float>}, {scale<double>}}};
  int rule = 0;
  (fill_steps<R>(k.step[rule++]), ...);
  fill_norms<Norm2>(k.norm[int(ClipNorm::two)]);
  fill_norms<Norm1>(k.norm[int(ClipNorm::one)]);
  fill_norms<NormMax>(k.norm[int(ClipNorm::max)]);
  return k;
}

}  // namespace

#define FASTOPT_JOIN(a, b) a##b
#define FASTOPT_TABLE(isa) FASTOPT_JOIN(kernels_, isa)
#define FASTOPT_TEXT(isa) #isa
#define FASTOPT_NAME(isa) FASTOPT_TEXT(isa)

// constexpr: no initialiser of an instruction set the machine may lack runs when the module loads.
constexpr Kernels FASTOPT_TABLE(FASTOPT_ISA) = table(FASTOPT_NAME(FASTOPT_ISA), RuleList{});

}  // namespace fastopt::cpu
