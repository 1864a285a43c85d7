// What one instruction set offers: loops over a stretch of one tensor, on the calling thread. Each
// kernels_*.cpp is compiled once for each instruction set and fills one table at compile time.
#pragma once

#include "core/backend.hpp"
#include "rules/dropout.hpp"
#include "rules/list.hpp"
#include "rules/update.hpp"

namespace fastopt::cpu {

// Elements of a tile (tile.hpp). Long enough to amortize its loops, short enough that the CPU loads the
// next tile while it computes this one: from DRAM, 512 takes 1.6 times as long (Adam, one thread, Zen
// 4).
inline constexpr int kTile = 128;

struct StepKernel {
  void (*prepare)(const Hyper&, int64_t step, Constants&);
  // `fetches`: asks ahead for what it will read.
  void (*range)(const Constants&, const StepTensor&, int64_t begin, int64_t end, bool prefetches);
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

// ---- BatchNorm ----

inline constexpr int kMaxPieceWidth = 512;  // of one piece: their sums fit a first-level cache
inline constexpr int kMaxMaskRowBits = 32;  // bits, where a row's are several lines

// What a reduction has summed of a block so far, of the quarter it is at and of those before: kLanes
// sums of one channel, or one for each of neighboring ones. Moments are taken about a pivot, the
// block's first value.
struct BlockSums {
  double first[kMaxPieceWidth], second[kMaxPieceWidth];
  double first_before[kMaxPieceWidth], second_before[kMaxPieceWidth];
  double pivot[kMaxPieceWidth];
};

// An array's part in a stretch of rows; `stride` bytes from one row to the next.
struct Rows {
  char* data;
  int64_t stride;
};

// `rows` rows of `n` elements: of one channel, or of neighboring ones with `run` elements of each side
// by side, kMaxPieceWidth elements at most. Rows of few channels may be given several as one, with
// constants as often. A kernel reads and writes those of the members it names; without data, an array
// takes no part.
struct ChannelPiece {
  int64_t rows, n;
  int64_t run = 1;         // never more where something is summed
  Rows x, residual, y;     // forward
  Rows dy, dx, dresidual;  // backward
  Rows relu_mask;          // a bit an element, in `lines` lines of whole bytes a row, several if short
  int64_t mask_rows = 1;
  bool relu;
  bool nontemporal;            // results go past the caches
  const double* constants[4];  // of Normalize or NormalizeBackward, the first channel's

  // A reduction may be given a block of `size` values a channel in several pieces, this one from value
  // `from` on. The last one leaves two numbers for each channel.
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

// What a kernels_*.cpp calls its table: FASTOPT_ISA, given by the build, ends its name. constexpr, so
// that no initializer of an instruction set the machine may lack runs when the module loads.
#define FASTOPT_JOIN(a, b) a##b
#define FASTOPT_TABLE(kind, isa) FASTOPT_JOIN(kind, isa)

extern const StepKernels steps_v2, steps_v3, steps_v4, steps_neon;
extern const BatchNormKernels batch_norm_v2, batch_norm_v3, batch_norm_v4, batch_norm_neon;
extern const DropoutKernels dropout_v2, dropout_v3, dropout_v4, dropout_neon;

}  // namespace fastopt::cpu
