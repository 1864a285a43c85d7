// The interface between the bindings and the engines: a table of functions per device and the plain
// structs they take. bind/ fills the structs with validated buffers; cpu/ and cuda/ each implement one
// Backend.
#pragma once

#include <cstdint>

#include "core/batch_norm.hpp"
#include "core/buffer.hpp"
#include "core/dropout.hpp"
#include "core/dtype.hpp"
#include "core/hyper.hpp"
#include "core/place.hpp"

namespace fastopt {

inline constexpr int kMaxSlots = 3;

struct StepTensor {
  void* param;
  Source grad;
  void* state[kMaxSlots];
  int64_t size;
  double clip;  // the clip coefficient; computed by an engine on the host
};

// Consecutive tensors that share storage and hyper-parameters.
struct StepRun {
  Storage storage;
  const Hyper* hyper;
  StepTensor* tensors;
  int64_t count;
};

// Steps applied, and steps skipped because a gradient was not finite.
struct Counts {
  int64_t step = 0, skipped = 0;
};

// What an engine keeps for a list of tensors from step to step, mostly on a device: tables of pointers,
// hyper-parameters, counts. Created by Backend::make_step_plan, destroyed by
// Backend::destroy_step_plan.
struct StepPlan;

struct StepCall {
  Place place;
  int rule;  // an index into RuleList
  StepRun* runs;
  int64_t count;
  int64_t step;             // 1 for the first; a device that counts steps uses its own count
  const Hyper* list_hyper;  // clipping by norm and the non-finite policy, for the whole list
  StepPlan* plan;           // of these runs, or null for a single step
  // Whether each gradient has the address and layout that it had in this plan's last step.
  bool same_grads = false;
};

// Result of a step. `nonfinite` is the index of the first tensor with a NaN or an infinity if the
// policy checks for them and found one (nothing was written then), otherwise -1. `queued` means that
// only the device will know whether the step was applied; query Backend::counts.
struct StepReport {
  int64_t nonfinite;
  bool queued = false;
};

// The norm is taken of clamp(x * scale, +-limit), the values that a step uses.
struct NormTensor {
  Source data;
  DType dtype;
  int64_t size;
  double scale = 1.0;
  double limit = kNoLimit;
};

// In place: data[i] = clamp(data[i], +-limit) * coef.
struct ScaleTensor {
  void* data;
  DType dtype;
  int64_t size;
  double coef;
};

// A device's functions queue their work on the caller's stream and return; those that return a number
// to the host wait for it. On the host, all work is done on return.
struct Backend {
  const char* name;

  StepReport (*step)(const StepCall&);
  // The next five are null for an engine without step plans.
  StepPlan* (*make_step_plan)(const StepCall&);
  void (*destroy_step_plan)(StepPlan*);
  Counts (*counts)(StepPlan*, const Place&);
  void (*set_counts)(StepPlan*, const Place&, Counts);
  void (*set_hypers)(StepPlan*, const StepCall&);

  // The norm of the whole list as one sequence, each array's elements in memory order.
  double (*norm)(const Place&, const NormTensor*, int64_t count, ClipNorm);
  void (*scale)(const Place&, const ScaleTensor*, int64_t count, double limit);

  void (*batch_moments)(const BatchMoments&);
  void (*batch_norm_forward)(const BatchNormForward&);
  void (*batch_norm_backward)(const BatchNormBackward&);

  void (*dropout)(const DropoutCall&);

  // Memory of the engine, for one call or retained for later ones, and copies between it and the host.
  void* (*allocate)(const Place&, int64_t bytes);
  void (*release)(const Place&, void*);
  void* (*allocate_retained)(const Place&, int64_t bytes);
  void (*release_retained)(const Place&, void*);
  void (*copy_to_host)(const Place&, void* host, const void* from, int64_t bytes);
  void (*copy_to_device)(const Place&, void* to, const void* host, int64_t bytes);

  // The device of a buffer, or kHost for host memory.
  int (*device_of)(const void*);
  // Makes later work on `place` wait for the work queued so far on another stream of its device.
  // Returns false if there is nothing to wait for.
  bool (*wait_for)(const Place& place, void* stream);
  // Whether the stream is being captured into a graph.
  bool (*is_capturing)(const Place&);
};

}  // namespace fastopt
