// Runs a kernel over arrays by channels. The values of a channel have positions 0 to count - 1 in
// memory order and are divided into blocks. A thread is given rectangles of channels and blocks, which
// a pass divides into pieces that the kernel can process.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/batch_norm.hpp"
#include "cpu/kernels.hpp"
#include "rules/moments.hpp"

namespace fastopt::cpu {

inline int64_t block_of(const ChannelSpace& s) { return s.rows ? kRowBlock : kPlaneBlock; }
inline int64_t blocks_of(const ChannelSpace& s) { return ceil_div(s.count(), block_of(s)); }

// Where nothing is summed, several short rows are processed as one long row, with the constants
// repeated: a power of two of them, so that a long row consists of whole tiles, or has few partial
// registers.
inline int64_t rows_per_batch(const ChannelSpace& s) {
  int64_t together = 1;
  if (s.rows && s.channels > 0)
    while (together * s.channels % kMaxTile != 0 && 2 * together * s.channels <= kMaxPieceWidth &&
           s.outer >= 64 * together)
      together *= 2;
  return together;
}

// The address of index `outer` of the axes that are walked, for one channel.
inline char* address_of(const ChannelSpace& s, const ChannelArray& a, int64_t channel, int64_t outer) {
  char* p = a.data + channel * a.channel;
  for (int d = s.ndim - 1; d > 0; outer /= s.shape[d--]) p += outer % s.shape[d] * a.stride[d];
  return s.ndim > 0 ? p + outer * a.stride[0] : p;
}

// How many consecutive rows or segments are a constant stride apart, and that stride.
inline int64_t rows_at_even_stride(const ChannelSpace& s) {
  return s.ndim > 1 ? s.shape[s.ndim - 1] : s.outer;
}
inline int64_t even_stride(const ChannelSpace& s, const ChannelArray& a) {
  return s.ndim > 0 ? a.stride[s.ndim - 1] : 0;
}

// Two numbers for each channel and block. Combining the blocks leaves the result in block 0.
struct PartialsView {
  double *first, *second;
  int64_t channel_stride, block_stride;
};

class ChannelPass {
 public:
  ChannelPass(const ChannelSpace& space, DType dtype, const ChannelKernel (&kernels)[kForms][kDTypes],
              const PartialsView& partials = {}, const uint8_t* relu_mask = nullptr);

  // Adds an array that the kernel reads or writes; one without data is skipped.
  void reads(Rows ChannelPiece::* place, const ChannelArray& a) { add({place, &a, false}); }
  void writes(Rows ChannelPiece::* place, const ChannelArray& a) { add({place, &a, true}); }
  int arrays() const { return count_; }

  // Whether non-temporal stores can write all rows. Consecutive rows share cache lines.
  bool can_store_nontemporal() const;

  // Process blocks in reverse, because what the reduction read last is still in cache. Not for rows,
  // where the cached part is the end of the whole array: with two threads, reversing takes up to 1.1
  // times as long.
  bool reversed = false;

  // What all pieces have in common; constants start at channel 0.
  ChannelPiece piece{};

  // Channels [c0, c1) of blocks [b0, b1).
  void operator()(int64_t c0, int64_t c1, int64_t b0, int64_t b1) const;

 private:
  struct Operand {
    Rows ChannelPiece::* place;
    const ChannelArray* array;
    bool written;
  };

  // In planes: elements [from, from + n) of a segment, in `channels` consecutive channels and `rows`
  // consecutive segments.
  struct Segments {
    int64_t channel, channels, segment, from, n, rows;
  };

  void add(const Operand& o) {
    if (o.array->data) operands_[count_++] = o;
  }
  ChannelPiece make_piece(int64_t channel, int64_t begin) const;
  void run(Form form, const ChannelPiece& p) const { kernels_[int(form)](p); }
  int64_t blocks_per_piece() const;
  bool is_contiguous() const;

  // channel_planes.cpp
  bool can_merge_channels() const;
  void run_merged_planes(int64_t c0, int64_t c1, int64_t begin, int64_t end, BlockSums& sums) const;
  void run_plane(int64_t channel, int64_t begin, int64_t end, BlockSums& sums) const;
  void run_segments(const Segments&, BlockSums& sums) const;
  void run_plane_gathered(int64_t channel, int64_t begin, int64_t end, BlockSums& sums) const;

  // channel_rows.cpp
  bool can_merge_rows() const;
  void run_rows(int64_t c0, int64_t c1, int64_t begin, int64_t end, BlockSums& sums) const;
  void run_merged_rows(ChannelPiece& piece, int64_t together) const;

  const ChannelSpace& space_;
  int64_t itemsize_;
  ChannelKernel kernels_[kForms];
  PartialsView partials_;  // of a reduction, which is given whole blocks; otherwise null
  char* relu_mask_;
  Operand operands_[4];
  int count_ = 0;
};

}  // namespace fastopt::cpu
