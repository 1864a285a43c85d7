// What precedes the element-wise part of a step: one thread block decides whether to step, counts, and
// computes clip coefficients from norms and constants from hyper-parameters, in double, as the CPU
// does.
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
    step_prologue(const StepTables t, const StepNeeds needs, int tensors) {
  grid_dependency_wait();
  const Control before = *t.control;
  const bool skip = needs.checks_finite && before.nonfinite != kAllFinite;
  const int64_t step = before.counts.step + !skip;
  for (int r = int(threadIdx.x); r < t.runs; r += kThreads)
    prepare_run<Rule>(t.hypers[r], t.doubles[r], step, t.constants[r]);
  for (int i = int(threadIdx.x); i < tensors; i += kThreads)
    t.clips[i] = needs.clips ? clip_to(t, needs.kind, needs.clip_per_tensor ? i : 0) : Clip{1.0, 1.0f};
  __syncthreads();  // all threads have read the previous values
  if (threadIdx.x == 0) *t.control = {{step, before.counts.skipped + skip}, kAllFinite, skip};
}

template <template <class> class Rule>
void launch_prologue(const Place& place, const StepTables& t, StepNeeds needs, int tensors) {
  launch(place, step_prologue<Rule>, 1, kThreads, t, needs, tensors);
}

template <class L>
struct StepPrologueRow;
template <template <class> class... Rule>
struct StepPrologueRow<List<Rule...>> {
  static constexpr StepPrologue prologues[] = {{launch_prologue<Rule>, prepare_run<Rule>}...};
};

}  // namespace

const StepPrologue* const step_prologues = StepPrologueRow<RuleList>::prologues;

}  // namespace fastopt::cuda
