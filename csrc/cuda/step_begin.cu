// What comes before the elements: one block of threads decides whether to step, counts, and turns norms
// into clip coefficients and hyper-parameters into constants, in double, as the CPU does.
#include "cuda/step.hpp"
#include "rules/around.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kThreads = 256;

__device__ Clip clip_to(const StepTables& t, ClipNorm kind, int sequence) {
  const Sequence& q = t.norms.sequences[sequence];
  const double size = norm_of(t.norms.states[sequence], kind, q.doubles);
  const double c = clip_coefficient(size, t.list_hyper->clip_norm, t.list_hyper->clip_eps);
  return {c, float(c)};
}

template <template <class> class Rule>
FASTOPT_HD void prepare_run(const Hyper& h, bool doubles, int64_t step, Constants& out) {
  doubles ? prepare<Rule<double>, double>(h, step, out) : prepare<Rule<float>, float>(h, step, out);
}

template <template <class> class Rule>
__global__ void __launch_bounds__(kThreads, 1)
    begin_step(const StepTables t, const StepNeeds needs, int tensors) {
  await_turn();
  const Control before = *t.control;
  const bool skip = needs.watches && before.nonfinite != kAllFinite;
  const int64_t step = before.counts.step + !skip;
  for (int r = int(threadIdx.x); r < t.runs; r += kThreads)
    prepare_run<Rule>(t.hypers[r], t.doubles[r], step, t.constants[r]);
  for (int i = int(threadIdx.x); i < tensors; i += kThreads)
    t.clips[i] = needs.clips ? clip_to(t, needs.kind, needs.clips_each ? i : 0) : Clip{1.0, 1.0f};
  __syncthreads();  // all have read what was before
  if (threadIdx.x == 0) *t.control = {{step, before.counts.skipped + skip}, kAllFinite, skip};
}

template <template <class> class Rule>
void launch_begin(const Place& place, const StepTables& t, StepNeeds needs, int tensors) {
  launch(place, begin_step<Rule>, 1, kThreads, t, needs, tensors);
}

template <class L>
struct BeginRow;
template <template <class> class... Rule>
struct BeginRow<List<Rule...>> {
  static constexpr Begin begins[] = {{launch_begin<Rule>, prepare_run<Rule>}...};
};

}  // namespace

const Begin* const step_begins = BeginRow<RuleList>::begins;

}  // namespace fastopt::cuda
