// What one instruction set offers: loops over a stretch of one tensor, on the calling thread. Filled at
// compile time from RuleList (kernels.cpp), one table for each instruction set.
#pragma once

#include "core/backend.hpp"
#include "rules/list.hpp"

namespace fastopt::cpu {

// A rule's constants and those around it, whatever their types.
struct Constants {
  alignas(64) unsigned char bytes[192];
};

struct StepKernel {
  void (*prepare)(const Hyper&, int64_t step, Constants&);
  void (*range)(const Constants&, const StepTensor&, int64_t begin, int64_t end);
};

struct NormKernel {
  // Adds elements [begin, end) to kNormLanes sums; the first of them belongs to `lane`.
  void (*add)(const NormTensor&, int64_t begin, int64_t end, int lane, double* lanes);
};

struct ScaleKernel {
  void (*range)(const ScaleTensor&, double limit, int64_t begin, int64_t end);
};

inline constexpr int kNorms = 3;

struct Kernels {
  const char* isa;
  StepKernel step[RuleList::size][kStorages];
  NormKernel norm[kNorms][kDTypes];
  ScaleKernel scale[kDTypes];
};

extern const Kernels kernels_v2, kernels_v3, kernels_v4, kernels_neon;

}  // namespace fastopt::cpu
