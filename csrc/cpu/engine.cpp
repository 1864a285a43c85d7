#include "cpu/engine.hpp"

#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "cpu/batch_norm.hpp"
#include "cpu/dropout.hpp"
#include "cpu/gather_buffer.hpp"
#include "cpu/isa_dispatch.hpp"
#include "cpu/norm.hpp"
#include "cpu/parallel.hpp"
#include "cpu/work_split.hpp"
#include "rules/around.hpp"

namespace fastopt::cpu {
namespace {

// Bytes that a step moves per element: parameter and state twice, the gradient once.
int64_t step_bytes(int rule, const StepRun& run) {
  const auto param = int64_t(bytes_of(stored_as(run.storage)));
  const bool wide = run.storage == Storage::float16_wide || run.storage == Storage::bfloat16_wide;
  const int64_t state = wide ? int64_t(sizeof(float)) : param;
  return 3 * param + 2 * state * InfoTable<RuleList>::rules[rule].slots;
}

template <class Visit>
void each_tensor(const StepCall& call, Visit&& visit) {
  for (const StepRun* run = call.runs; run < call.runs + call.count; ++run)
    for (StepTensor* t = run->tensors; t < run->tensors + run->count; ++t) visit(*run, *t);
}

// The gradients as a norm takes them: unscaled and, as in the step itself, limited by value.
std::vector<NormTensor> gradients(const StepCall& call, bool limited) {
  std::vector<NormTensor> list;
  each_tensor(call, [&](const StepRun& run, const StepTensor& t) {
    list.push_back({t.grad, stored_as(run.storage), t.size, gradient_factor(*run.hyper),
                    limited ? run.hyper->clip_value : kNoLimit});
  });
  return list;
}

// ---- clipping by norm: sets each tensor's coefficient; false if a norm is not finite ----

bool clip(const StepCall& call, const std::vector<NormTensor>& grads) {
  const Hyper& h = *call.list_hyper;
  bool all_finite = true;
  const auto coefficient = [&](const NormTensor* first, int64_t count) {
    const double size = norm(call.place, first, count, h.clip_norm_type);
    all_finite = all_finite && is_finite(size);
    return clip_coefficient(size, h.clip_norm, h.clip_eps);
  };
  const bool each = h.clip_scope == ClipScope::tensor;
  const double all = each ? 1.0 : coefficient(grads.data(), int64_t(grads.size()));
  const NormTensor* grad = grads.data();
  each_tensor(call, [&](const StepRun&, StepTensor& t) {
    t.clip = each ? coefficient(grad, 1) : all;
    ++grad;
  });
  return all_finite;
}

// ---- the non-finite policy ----

int64_t first_nonfinite(const Place& place, const std::vector<NormTensor>& grads) {
  for (size_t i = 0; i < grads.size(); ++i)
    if (!is_finite(norm(place, &grads[i], 1, ClipNorm::max))) return int64_t(i);
  return -1;
}

// The index of the first gradient that is not finite, or -1. A finite clip norm means that all are,
// unless a limit by value has hidden an infinity from it.
int64_t find_nonfinite(const StepCall& call, bool clipped, bool norm_is_finite) {
  bool limited = false;
  each_tensor(call, [&](const StepRun& run, const StepTensor&) {
    limited = limited || run.hyper->clip_value != kNoLimit;
  });
  if (clipped && norm_is_finite && !limited) return -1;
  const std::vector<NormTensor> grads = gradients(call, false);
  if (is_finite(norm(call.place, grads.data(), int64_t(grads.size()), ClipNorm::max))) return -1;
  return first_nonfinite(call.place, grads);
}

// ---- the step ----

void step_all(const StepCall& call) {
  thread_local std::vector<Constants> constants;
  constants.resize(call.count);
  const StepKernel(&table)[kStorages] = kernels().steps.step[call.rule];
  int64_t total = 0;
  for (int64_t i = 0; i < call.count; ++i) {
    const StepRun& run = call.runs[i];
    table[int(run.storage)].prepare(*run.hyper, call.step, constants[i]);
    for (int64_t t = 0; t < run.count; ++t) total += run.tensors[t].size * step_bytes(call.rule, run);
  }
  const Constants* const prepared = constants.data();
  on_threads(threads_for(total), [&](int thread, int threads) {
    const bool prefetches = total / threads > prefetch_threshold();
    ThreadSlice slice(total, thread, threads);
    GatherBuffer gathered;
    for (int64_t i = 0; i < call.count; ++i) {
      const StepRun& run = call.runs[i];
      const auto range = table[int(run.storage)].range;
      const auto itemsize = int64_t(bytes_of(stored_as(run.storage)));
      for (const StepTensor* t = run.tensors; t < run.tensors + run.count; ++t)
        slice.take(t->size, step_bytes(call.rule, run), [&](int64_t begin, int64_t end) {
          gathered.each(t->grad, itemsize, end, begin, end,
                        [&](const Source& grad, int64_t b, int64_t e) {
                          StepTensor part = *t;
                          part.grad = grad;
                          range(prepared[i], part, b, e, prefetches);
                        });
        });
    }
  });
}

StepReport step(const StepCall& call) {
  const IeeeMode mode;  // for the constants and the clip coefficient, which this thread computes
  const Hyper& h = *call.list_hyper;
  const bool clips = h.clip_norm != kNoLimit;
  bool norm_is_finite = true;
  if (clips)
    norm_is_finite = clip(call, gradients(call, true));
  else
    each_tensor(call, [](const StepRun&, StepTensor& t) { t.clip = 1.0; });
  if (h.on_nonfinite != OnNonfinite::propagate) {
    const int64_t found = find_nonfinite(call, clips, norm_is_finite);
    if (found >= 0) return {found};
  }
  step_all(call);
  return {-1};
}

void scale(const Place&, const ScaleTensor* tensors, int64_t count, double limit) {
  const ScaleKernel(&table)[kDTypes] = kernels().steps.scale;
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) total += tensors[i].size * int64_t(bytes_of(tensors[i].dtype));
  on_threads(threads_for(2 * total), [&](int thread, int threads) {
    ThreadSlice slice(total, thread, threads);
    for (const ScaleTensor* t = tensors; t < tensors + count; ++t) {
      const auto range = table[int(t->dtype)].range;
      slice.take(t->size, int64_t(bytes_of(t->dtype)), [&](int64_t begin, int64_t end) {
        if (t->coef != 1.0 || limit != kNoLimit) range(*t, limit, begin, end);
      });
    }
  });
}

// ---- memory ----

void* allocate(const Place&, int64_t bytes) {
  void* const data = std::malloc(size_t(bytes));
  if (!data && bytes > 0) throw std::bad_alloc();
  return data;
}
void release(const Place&, void* data) { std::free(data); }
void copy(const Place&, void* to, const void* from, int64_t bytes) { memcpy(to, from, size_t(bytes)); }

}  // namespace

const Backend backend = {
    .name = "cpu",
    .step = step,
    .make_step_plan = nullptr,
    .destroy_step_plan = nullptr,
    .counts = nullptr,
    .set_counts = nullptr,
    .set_hypers = nullptr,
    .norm = norm,
    .scale = scale,
    .batch_moments = batch_moments,
    .batch_norm_forward = batch_norm_forward,
    .batch_norm_backward = batch_norm_backward,
    .dropout = dropout,
    .allocate = allocate,
    .release = release,
    .allocate_retained = allocate,
    .release_retained = release,
    .copy_to_host = copy,
    .copy_to_device = copy,
    .device_of = [](const void*) { return kHost; },
    .wait_for = [](const Place&, void*) { return false; },
    .is_capturing = [](const Place&) { return false; },
};

}  // namespace fastopt::cpu
