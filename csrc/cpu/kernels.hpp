// The kernels of one instruction set: loops over a range of one tensor, on the calling thread. Each
// kernels_*.cpp is compiled once per instruction set and defines one constexpr table.
#pragma once

#include "core/backend.hpp"
#include "rules/dropout.hpp"
#include "rules/list.hpp"
#include "rules/update.hpp"

namespace fastopt::cpu {

// Elements of a tile (tile.hpp). Long enough to amortize its loops, short enough that the CPU loads the
// next tile while it computes this one: from DRAM, 512 takes 1.6 times as long (Adam, one thread, Zen
// 4). Tiles of 16-bit storage are converted by loops of their own, so they are longer (in cache, Adam
// takes 0.92 times as long); those of float are not (evaluation from DRAM would take 1.08 times as
// long).
inline constexpr int kTile = 128, kMaxTile = 256;
template <class P>
inline constexpr int kTileOf = sizeof(P) == 2 ? kMaxTile : kTile;

struct StepKernel {
  void (*prepare)(const Hyper&, int64_t step, Constants&);
  // `prefetches`: whether to prefetch what the loop will read.
  void (*range)(const Constants&, const StepTensor&, int64_t begin, int64_t end, bool prefetches);
};

struct NormKernel {
  // Adds elements [begin, end) to kNormLanes sums; element `begin` belongs to `lane`.
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

// ---- BatchNorm ----

inline constexpr int kMaxPieceWidth = 512;  // elements in a row of a piece: their sums fit the L1 cache
inline constexpr int kMaxMaskRowBits = 32;  // of mask rows that are merged into one row of a piece

// The sums of a block so far, for the current quarter and for the quarters before it: kLanes sums of
// one channel, or one sum for each of several neighboring channels. Moments are taken about a pivot,
// the first value of the block.
struct BlockSums {
  double first[kMaxPieceWidth], second[kMaxPieceWidth];
  double first_before[kMaxPieceWidth], second_before[kMaxPieceWidth];
  double pivot[kMaxPieceWidth];
};

// The rows of a piece in one array; `stride` bytes from one row to the next.
struct Rows {
  char* data;
  int64_t stride;
};

// `rows` rows of `n` elements: of one channel, or of neighboring channels with `run` adjacent elements
// of each, at most kMaxPieceWidth elements. Several rows of few channels may be merged into one, with
// the constants repeated. A kernel uses only the members that it names; an array without data is
// absent.
struct ChannelPiece {
  int64_t rows, n;
  int64_t run = 1;         // always 1 where something is summed
  Rows x, residual, y;     // forward
  Rows dy, dx, dresidual;  // backward
  Rows relu_mask;          // one bit per element, in `mask_rows` rows of whole bytes for each row
  int64_t mask_rows = 1;
  bool relu;
  bool nontemporal;            // whether results bypass the caches
  const double* constants[4];  // of Normalize or NormalizeBackward, from the first channel on

  // A reduction may process a block of `size` values per channel in several pieces; this one starts at
  // value `from`. The last piece writes two numbers for each channel.
  int64_t from, size;
  BlockSums* sums;
  double *first, *second;
};
using ChannelKernel = void (*)(const ChannelPiece&);

// Whether a piece is of one channel or of neighboring ones.
enum class Form { single, multi };
inline constexpr int kForms = 2;

// By form.
struct BatchNormKernels {
  ChannelKernel moments[kForms][kDTypes];
  ChannelKernel normalize[kForms][kDTypes];
  ChannelKernel reduce[kForms][kDTypes];
  ChannelKernel gradient[kForms][kDTypes];
};

// ---- dropout ----

struct DropoutKernel {
  void (*range)(const DropoutCall&, const DropoutConstants&, int64_t begin, int64_t end,
                bool nontemporal);
};

struct DropoutKernels {
  DropoutKernel apply[kDTypes];
  void (*mask)(const DropoutMask&, uint64_t threshold, int64_t begin, int64_t end, bool* keep);
};

// All tables of one instruction set.
struct Kernels {
  const char* isa;
  const StepKernels& steps;
  const BatchNormKernels& batch_norm;
  const DropoutKernels& dropout;
};

// The name of a table ends in FASTOPT_ISA, which the build defines. Tables are constexpr, so that
// loading the module runs no initializer that was compiled for an instruction set the machine may lack.
#define FASTOPT_JOIN(a, b) a##b
#define FASTOPT_TABLE(kind, isa) FASTOPT_JOIN(kind, isa)

extern const StepKernels steps_v2, steps_v3, steps_v4, steps_neon;
extern const BatchNormKernels batch_norm_v2, batch_norm_v3, batch_norm_v4, batch_norm_neon;
extern const DropoutKernels dropout_v2, dropout_v3, dropout_v4, dropout_neon;

}  // namespace fastopt::cpu
