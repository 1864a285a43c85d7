// A step on a device: one launch for each storage, with constants that the host makes. Where it cannot,
// all that a step needs lies on the device, so that a captured graph goes on as the optimizer would:
// norms, if the step clips or looks for what is not finite; then one block that counts, decides and
// makes constants in double; then the step itself.
#pragma once

#include "cuda/norm.hpp"
#include "cuda/vectors.hpp"
#include "rules/list.hpp"
#include "rules/update.hpp"

namespace fastopt::cuda {

// A tensor as the step finds it. Gradients stand apart: they may lie elsewhere in every step.
struct StepEntry {
  void* param;
  void* state[kMaxSlots];
  int64_t size;
  int32_t index, run;  // in the order that the user gave
};

// Rounded once, so that no kernel of float32 meets a double.
struct Clip {
  double wide;
  float narrow;
};

inline constexpr int64_t kAllFinite = INT64_MAX;

struct Control {
  Counts counts;
  int64_t nonfinite;  // the least index of a tensor with a NaN or an infinity, or kAllFinite
  int64_t skip;       // whether this step writes nothing
};

// On the device.
struct StepTables {
  const StepEntry* entries;  // by storage
  const int64_t* chunks;     // the first chunk of each, counted within its storage
  const Source* grads;       // by index
  const Hyper *hypers, *list_hyper;
  const int64_t* doubles;  // of each run: whether it computes in double
  Constants* constants;    // of each run
  Clip* clips;             // by index
  Control* control;
  NormTables norms;
  int32_t runs;
  int32_t vectors;  // of a thread
};

// A block of threads takes a vector of 16 bytes for each thread, or two, from the parameter's first
// boundary of 16 bytes on; what is before that goes with the first chunk. So short, what is moved at a
// time lies close together and the last chunks to finish matter little: on an H100 Adam takes 1.03
// times as long by chunks of 16384 elements. Two where a block has to find out first whose chunk it
// has, and there are enough of them: ResNet-50's list takes 1.02 times as long by one; and where it
// reads so little that half of its time goes by before its loads are under way, as of plain SGD.
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

// Of a step that the host knows all about: its number, and the constants of each run. They come as
// arguments, which a processor has at hand.
inline constexpr int kMaxHostConstants = 4;
struct HostConstants {
  int64_t step = 0;  // 0: nothing is given
  Constants constants[kMaxHostConstants];
};

// What a step does besides, as it was when the step was queued.
struct StepNeeds {
  bool clips, clip_per_tensor, checks_finite;
  ClipNorm kind;
};

// Queues the kernel of one rule, for entries [first, first + count) and all their chunks.
using StepLaunch = void (*)(const Place&, const StepTables&, const HostConstants&, int first, int count,
                            int64_t chunks);
// By rule, what makes constants: a kernel for all runs, or the host for one.
struct StepPrologue {
  void (*launch)(const Place&, const StepTables&, StepNeeds, int tensors);
  void (*prepare)(const Hyper&, bool doubles, int64_t step, Constants&);
};

// By rule; a file for each storage.
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
