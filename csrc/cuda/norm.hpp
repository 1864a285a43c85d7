// Norms on a device: of one sequence of tensors, or of several at once.
#pragma once

#include <vector>

#include "core/backend.hpp"
#include "cuda/device_buffer.hpp"
#include "rules/norms.hpp"

namespace fastopt::cuda {

inline constexpr int kGroup = 16;  // tree blocks
inline constexpr int64_t kGroupSize = int64_t(kGroup) * kNormBlock;

// A tensor as a norm reads it. Its elements are found through `index`, since their address may change
// from call to call.
struct NormEntry {
  int64_t start;  // within its sequence
  int64_t size;
  int32_t index, run;
  DType dtype;
};

// The tensors of one norm: entries [first, first + count).
struct Sequence {
  int32_t first, count;
  int64_t elements;
  int64_t group;  // the first of its groups
  bool doubles;   // whether any tensor is float64
};

// How gradients are scaled and clamped before any other use.
struct NormScaleClamp {
  double scale, limit;
};

// In device memory, except for the numbers.
struct NormTables {
  const NormEntry* entries;
  const int64_t* starts;  // the starts of the entries again, for searching
  const Sequence* sequences;
  const int64_t* groups;  // the first groups of the sequences, likewise
  const Source* sources;
  const NormScaleClamp* scale_clamps;  // by run
  double* parts;                       // one per group
  Norm2State* states;                  // one per sequence: the input of norm_of
  int64_t* nonfinite;  // the lowest index of a tensor with a NaN or an infinity; null if not wanted
  int32_t sequence_count;
  int64_t group_count;
};

// The host's part of these tables.
struct NormPlan {
  std::vector<NormEntry> entries;
  std::vector<int64_t> starts;
  std::vector<Sequence> sequences;
  std::vector<int64_t> groups;
  int64_t group_count = 0;

  void add(int64_t size, int run, DType dtype);  // adds to the sequence that was begun last
  void begin_sequence();

  // Allocates its tables.
  NormTables lay_out(Arena& arena) const;
  void send_to(const Place& place, const NormTables& tables) const;
};

// Queues the kernels that compute the states of all sequences and find values that are not finite.
void queue_norms(const Place& place, const NormPlan& plan, const NormTables& tables, ClipNorm kind);

FASTOPT_HD double norm_of(const Norm2State& state, ClipNorm kind, bool doubles) {
  return kind == ClipNorm::two ? state.norm(doubles) : state.sum;
}

// Implements Backend::norm.
double norm(const Place& place, const NormTensor* tensors, int64_t count, ClipNorm kind);

}  // namespace fastopt::cuda
