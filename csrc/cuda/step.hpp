// A step on a device: one launch per storage type, with constants computed on the host. Where the host
// cannot know them (a norm decides, or a graph is captured), everything a step needs is kept on the
// device, so that replaying a captured graph continues exactly as the optimizer would: norms, if the
// step clips or checks for non-finite values; then one block that decides, counts and computes the
// constants in double; then the step itself.
#pragma once

#include "cuda/norm.hpp"
#include "cuda/vectors.hpp"
#include "rules/list.hpp"
#include "rules/update.hpp"

namespace fastopt::cuda {

// A tensor of a step. Gradients are stored separately, because they may be elsewhere in every step.
struct StepEntry {
  void* param;
  void* state[kMaxSlots];
  int64_t size;
  int32_t index, run;  // in the user's order
};

// Rounded to float once, so that no float32 kernel contains double arithmetic.
struct Clip {
  double wide;
  float narrow;
};

inline constexpr int64_t kAllFinite = INT64_MAX;

struct Control {
  Counts counts;
  int64_t nonfinite;  // the lowest index of a tensor with a NaN or an infinity, or kAllFinite
  int64_t skip;       // nonzero if this step writes nothing
};

// In device memory.
struct StepTables {
  const StepEntry* entries;  // sorted by storage
  const int64_t* chunks;     // the first chunk of each entry, counted within its storage
  const Source* grads;       // by index
  const Hyper *hypers, *list_hyper;
  const int64_t* doubles;  // by run: whether it computes in double
  Constants* constants;    // by run
  Clip* clips;             // by index
  Control* control;
  NormTables norms;
  int32_t runs;
  int32_t vectors;  // per thread
};

// Each thread of a block processes one or two vectors of 16 bytes, starting at the parameter's first
// 16-byte boundary; elements before it belong to the first chunk. Chunks are this small so that
// concurrent accesses stay close together and the tail effect is small: on an H100 Adam takes 1.03
// times as long with chunks of 16384 elements. Two vectors per thread are used when a block must first
// search for its tensor and there are enough chunks (ResNet-50's list takes 1.02 times as long with
// one), and when it reads so little that half of its time passes before its loads are in flight, as in
// plain SGD.
inline constexpr int kStepThreads = 256;

struct ChunkLayout {
  int64_t head, chunk;  // elements

  __host__ __device__ ChunkLayout(const void* param, int64_t itemsize, int vectors)
      : head(int64_t(-reinterpret_cast<uintptr_t>(param) % kVectorBytes) / itemsize),
        chunk(vectors * kStepThreads * kVectorBytes / itemsize) {}
  __host__ __device__ int64_t count(int64_t size) const {
    return size <= head + chunk ? 1 : ceil_div(size - head, chunk);
  }
};

// For a step that is fully known on the host: the step number and each run's constants, passed as
// kernel arguments (constant memory).
inline constexpr int kMaxHostConstants = 4;
struct HostConstants {
  int64_t step = 0;  // 0: not known on the host
  Constants constants[kMaxHostConstants];
};

// What a step does besides updating, as set when it was queued.
struct StepNeeds {
  bool clips, clip_per_tensor, checks_finite;
  ClipNorm kind;
};

// Queues the kernel of one rule for all chunks of entries [first, first + count).
using StepLaunch = void (*)(const Place&, const StepTables&, const HostConstants&, int first, int count,
                            int64_t chunks);
// Computes the constants of one rule: in a kernel for all runs, or on the host for one run.
struct StepPrologue {
  void (*launch)(const Place&, const StepTables&, StepNeeds, int tensors);
  void (*prepare)(const Hyper&, bool doubles, int64_t step, Constants&);
};

// Indexed by rule; one source file per storage.
extern const StepLaunch* const steps_float16;
extern const StepLaunch* const steps_bfloat16;
extern const StepLaunch* const steps_float32;
extern const StepLaunch* const steps_float64;
extern const StepLaunch* const steps_float16_wide;
extern const StepLaunch* const steps_bfloat16_wide;
extern const StepPrologue* const step_prologues;

StepReport step(const StepCall& call);
StepPlan* make_step_plan(const StepCall& call);
void destroy_step_plan(StepPlan* plan);
Counts counts(StepPlan* plan, const Place& place);
void set_counts(StepPlan* plan, const Place& place, Counts counts);
void set_hypers(StepPlan* plan, const StepCall& call);

}  // namespace fastopt::cuda
