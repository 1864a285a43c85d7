// What one instruction set offers: loops over a stretch of one tensor, on the calling thread. Each
// kernels_*.cpp is compiled once for each instruction set and fills one table at compile time.
#pragma once

#include "core/backend.hpp"
#include "rules/dropout.hpp"
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

struct StepKernels {
  StepKernel step[RuleList::size][kStorages];
  NormKernel norm[kNorms][kDTypes];
  ScaleKernel scale[kDTypes];
};

struct DropoutKernel {
  void (*range)(const DropoutCall&, const DropoutConstants&, int64_t begin, int64_t end);
};

struct DropoutKernels {
  DropoutKernel apply[kDTypes];
  void (*mask)(const DropoutMask&, uint64_t threshold, int64_t begin, int64_t end, bool* keep);
};

// All tables of one instruction set.
struct Kernels {
  const char* isa;
  const StepKernels& steps;
  const DropoutKernels& dropout;
};

// What a kernels_*.cpp calls its table: FASTOPT_ISA, given by the build, ends its name. constexpr, so
// that no initialiser of an instruction set the machine may lack runs when the module loads.
#define FASTOPT_JOIN(a, b) a##b
#define FASTOPT_TABLE(kind, isa) FASTOPT_JOIN(kind, isa)

extern const StepKernels steps_v2, steps_v3, steps_v4, steps_neon;
extern const DropoutKernels dropout_v2, dropout_v3, dropout_v4, dropout_neon;

}  // namespace fastopt::cpu
