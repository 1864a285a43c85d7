#include "cuda/step.hpp"

#include "cuda/step_plan.hpp"

namespace fastopt::cuda {
namespace {

const StepLaunch* launches_of(int storage) {
  const StepLaunch* const by_storage[kStorages] = {steps_float16,      steps_bfloat16,
                                                   steps_float32,      steps_float64,
                                                   steps_float16_wide, steps_bfloat16_wide};
  return by_storage[storage];
}

// on_nonfinite="raise" must be decided before anything is written.
int64_t wait_for_nonfinite(StepPlan& m, const Place& place) {
  int64_t found = kAllFinite;
  copy_to_host(place, &found, &m.tables.control->nonfinite, sizeof(found));
  if (found == kAllFinite) return -1;
  Counts now = counts(&m, place);
  ++now.skipped;
  m.send_counts(place, now);
  return found;
}

StepReport run(StepPlan& m, const StepCall& call) {
  const Place& place = call.place;
  const Hyper& list_hyper = *call.list_hyper;
  const bool recording = is_recording(place);
  const OnNonfinite policy = list_hyper.on_nonfinite;
  if (recording && policy == OnNonfinite::raise)
    throw std::runtime_error(
        "on_nonfinite=\"raise\" waits for the device, which a stream that is being captured cannot; "
        "\"skip\" can");
  if (m.tensors == 0) return {-1};
  m.send_hypers(call);
  m.send_grads(call, recording);
  const bool clips = list_hyper.clip_norm != kNoLimit, checks_finite = policy != OnNonfinite::propagate;
  const StepNeeds needs{clips, list_hyper.clip_scope == ClipScope::tensor, checks_finite,
                        clips ? list_hyper.clip_norm_type : ClipNorm::max};
  if (clips || checks_finite) m.queue_norms(place, needs.kind, checks_finite);
  if (policy == OnNonfinite::raise)
    if (const int64_t found = wait_for_nonfinite(m, place); found >= 0) return {found};

  HostConstants host;
  if (!clips && !checks_finite) host = m.host_constants(call);
  if (host.step == 0) step_prologues[call.rule].launch(place, m.tables, needs, m.tensors);
  for (int s = 0; s < kStorages; ++s)
    if (const StepPlan::Span& span = m.spans[s]; span.count > 0)
      launches_of(s)[call.rule](place, m.tables, host, span.first, span.count, span.chunks);

  const bool queued = recording || policy == OnNonfinite::skip;
  m.device_counted = m.device_counted || queued;
  if (!queued) ++m.host_counts.step;
  return {-1, queued};
}

}  // namespace

StepReport step(const StepCall& call) {
  const DeviceGuard current(call.place);
  if (call.plan) return run(*call.plan, call);
  StepPlan once(call, Lifetime::call);
  return run(once, call);
}

StepPlan* make_step_plan(const StepCall& call) {
  const DeviceGuard current(call.place);
  if (is_recording(call.place))
    throw std::runtime_error(
        "the stream is being captured, and this optimizer has arrays that are new to it: let it take a "
        "step with them before");
  return new StepPlan(call, Lifetime::persistent);
}

void destroy_step_plan(StepPlan* plan) { delete plan; }

Counts counts(StepPlan* plan, const Place& place) {
  if (plan->host_knows_counts()) return plan->host_counts;
  copy_to_host(place, &plan->host_counts, &plan->tables.control->counts, sizeof(Counts));
  plan->device_counted = false;
  return plan->host_counts;
}

void set_counts(StepPlan* plan, const Place& place, Counts counts) {
  const DeviceGuard current(place);
  if (is_recording(place))
    throw std::runtime_error(
        "a count was set on a stream that is being captured: set it before or after");
  plan->send_counts(place, counts);
}

void set_hypers(StepPlan* plan, const StepCall& call) {
  const DeviceGuard current(call.place);
  plan->send_hypers(call);
}

}  // namespace fastopt::cuda
