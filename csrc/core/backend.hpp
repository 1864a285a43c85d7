// What a device does for fastopt, and the plain structs it is told with. bind/ fills them with
// checked buffers; an engine (cpu/, cuda/) obeys. Device and instruction set collapse into which
// Backend is called.
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
  double clip;  // the clip coefficient; an engine on the host fills it in
};

// A stretch of tensors that share storage and hyper-parameters.
struct StepRun {
  Storage storage;
  const Hyper* hyper;
  StepTensor* tensors;
  int64_t count;
};

// Steps done, and steps skipped for a gradient that was not finite.
struct Counts {
  int64_t step = 0, skipped = 0;
};

// What an engine keeps of a list of tensors from step to step, on a device above all: tables of
// pointers, hyper-parameters, counts. Made by Backend::make_step_plan, ended by
// Backend::destroy_step_plan.
struct StepPlan;

struct StepCall {
  Place place;
  int rule;  // an index into RuleList
  StepRun* runs;
  int64_t count;
  int64_t step;             // 1 for the first; a device that counts for itself knows better
  const Hyper* list_hyper;  // clipping by norm and the non-finite policy, for the whole list
  StepPlan* plan;           // of these runs, or null: for this once
  // Whether all gradients lie where they lay in this plan's last step, element by element.
  bool same_grads = false;
};

// What became of a step. `nonfinite` is the index of the first tensor with a NaN or an infinity where
// the policy looks for one and found it (nothing was written then), or -1. `queued`: the device alone
// will know whether it stepped; Backend::counts tells.
struct StepReport {
  int64_t nonfinite;
  bool queued = false;
};

// Elements enter a norm as clamp(x * scale, +-limit), as they enter a step.
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

// An engine queues its work on the caller's stream and returns; what gives a number to the host waits
// for it. On the host, everything is done on return.
struct Backend {
  const char* name;

  StepReport (*step)(const StepCall&);
  // A host that keeps nothing has null here, and below.
  StepPlan* (*make_step_plan)(const StepCall&);
  void (*destroy_step_plan)(StepPlan*);
  Counts (*counts)(StepPlan*, const Place&);
  void (*set_counts)(StepPlan*, const Place&, Counts);
  void (*set_hypers)(StepPlan*, const StepCall&);

  // The norm of the whole list taken as one sequence, its elements in memory order.
  double (*norm)(const Place&, const NormTensor*, int64_t count, ClipNorm);
  void (*scale)(const Place&, const ScaleTensor*, int64_t count, double limit);

  void (*batch_moments)(const BatchMoments&);
  void (*batch_norm_forward)(const BatchNormForward&);
  void (*batch_norm_backward)(const BatchNormBackward&);

  void (*dropout)(const DropoutCall&);

  // Memory for an engine's own numbers: for one call, or retained for later ones. Copies between it and
  // the host.
  void* (*allocate)(const Place&, int64_t bytes);
  void (*release)(const Place&, void*);
  void* (*allocate_retained)(const Place&, int64_t bytes);
  void (*release_retained)(const Place&, void*);
  void (*copy_to_host)(const Place&, void* host, const void* from, int64_t bytes);
  void (*copy_to_device)(const Place&, void* to, const void* host, int64_t bytes);

  // The device of a buffer; kHost for one in host memory.
  int (*device_of)(const void*);
  // Lets work queued on `place` wait for what is queued on another stream of its device by now; false
  // where there is nothing to wait for.
  bool (*wait_for)(const Place& place, void* stream);
  // Whether what is queued there is only written down, in a graph.
  bool (*is_capturing)(const Place&);
};

}  // namespace fastopt
