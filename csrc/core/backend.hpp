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

namespace fastopt {

inline constexpr int kMaxSlots = 3;

struct StepTensor {
  void* param;
  Source grad;
  void* state[kMaxSlots];
  int64_t size;
  double clip;  // the clip coefficient; the engine fills it in
};

// A stretch of tensors that share rule, storage and hyper-parameters.
struct StepRun {
  int rule;  // an index into RuleList
  Storage storage;
  const Hyper* hyper;
  StepTensor* tensors;
  int64_t count;
};

struct StepCall {
  StepRun* runs;
  int64_t count;
  int64_t step;        // 1 for the first
  const Hyper* whole;  // clipping by norm and the non-finite policy, for the whole list
};

// What became of a step: `nonfinite` is the index of the first tensor with a NaN or an infinity
// where the policy looks for one and found it (nothing was written then), or -1.
struct StepReport {
  int64_t nonfinite;
};

// Elements enter a norm as clamp(x * scale, +-limit), as they enter a step.
struct NormTensor {
  Source data;
  DType dtype;
  int64_t size;
  double scale = 1.0;
  double limit = kNone;
};

// In place: data[i] = clamp(data[i], +-limit) * coef.
struct ScaleTensor {
  void* data;
  DType dtype;
  int64_t size;
  double coef;
};

struct Backend {
  const char* name;
  StepReport (*step)(const StepCall&);
  // The norm of the whole list taken as one sequence, its elements in memory order.
  double (*norm)(const NormTensor*, int64_t count, ClipNorm);
  void (*scale)(const ScaleTensor*, int64_t count, double limit);
  void (*batch_moments)(const BatchMoments&);
  void (*batch_norm_forward)(const BatchNormForward&);
  void (*batch_norm_backward)(const BatchNormBackward&);
  void (*dropout)(const DropoutCall&);
  void (*dropout_mask)(const DropoutMask&, int64_t size, bool* keep);
};

}  // namespace fastopt
