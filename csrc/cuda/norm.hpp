// Norms on a device: of one sequence of tensors, or of several side by side.
#pragma once

#include <vector>

#include "core/backend.hpp"
#include "cuda/device_buffer.hpp"
#include "rules/norms.hpp"

namespace fastopt::cuda {

inline constexpr int kGroup = 16;  // blocks
inline constexpr int64_t kGroupSize = int64_t(kGroup) * kNormBlock;

// A tensor as a norm reads it. Where its elements lie is looked up by `index`: that may change from
// call to call, and the rest stays.
struct NormEntry {
  int64_t start;  // in its sequence
  int64_t size;
  int32_t index, run;
  DType dtype;
};

// One norm's tensors, entries [first, first + count).
struct Sequence {
  int32_t first, count;
  int64_t elements;
  int64_t group;  // the first of its groups of blocks
  bool doubles;   // whether any tensor is float64
};

// The size of gradients before anything else looks at them.
struct NormScaleClamp {
  double scale, limit;
};

// On the device, all but the numbers.
struct NormTables {
  const NormEntry* entries;
  const int64_t* starts;  // those of the entries, once more: to search in
  const Sequence* sequences;
  const int64_t* groups;  // those of the sequences, likewise
  const Source* sources;
  const NormScaleClamp* scale_clamps;  // by run
  double* parts;                       // one for each group
  Norm2State* states;                  // one for each sequence: what norm_of makes a norm of
  int64_t* nonfinite;  // the least index of a tensor with a NaN or an infinity, if any one asks
  int32_t sequence_count;
  int64_t group_count;
};

// What the host knows of them.
struct NormPlan {
  std::vector<NormEntry> entries;
  std::vector<int64_t> starts;
  std::vector<Sequence> sequences;
  std::vector<int64_t> groups;
  int64_t group_count = 0;

  void add(int64_t size, int run, DType dtype);  // to the sequence that was begun last
  void begin_sequence();

  // Takes its tables' part of a room, and fills it.
  NormTables lay_out(Arena& arena) const;
  void send_to(const Place& place, const NormTables& tables) const;
};

// Queues what computes the states of all sequences, and looks for what is not finite.
void queue_norms(const Place& place, const NormPlan& plan, const NormTables& tables, ClipNorm kind);

FASTOPT_HD double norm_of(const Norm2State& state, ClipNorm kind, bool doubles) {
  return kind == ClipNorm::two ? state.norm(doubles) : state.sum;
}

// Backend::norm
double norm(const Place& place, const NormTensor* tensors, int64_t count, ClipNorm kind);

}  // namespace fastopt::cuda
