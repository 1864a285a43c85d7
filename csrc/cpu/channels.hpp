// A pass of a kernel over arrays by channels. A channel's values have positions 0 ... count in memory
// order and are cut into blocks; a thread is given rectangles of channels and blocks, which a pass cuts
// into pieces that the kernel can take.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/batch_norm.hpp"
#include "cpu/kernels.hpp"
#include "rules/moments.hpp"

namespace fastopt::cpu {

inline int64_t block_of(const ChannelSpace& s) { return s.rows ? kRowBlock : kPlaneBlock; }
inline int64_t blocks_of(const ChannelSpace& s) { return ceil_div(s.count(), block_of(s)); }

// Where nothing is summed, short rows are taken several at a time, as long ones, with constants as
// often: a power of two of them, so that a long row is whole tiles, or has few ends of registers.
inline constexpr int64_t kWholeTile = 128;
inline int64_t rows_together(const ChannelSpace& s) {
  int64_t together = 1;
  if (s.rows && s.channels > 0)
    while (together * s.channels % kWholeTile != 0 && 2 * together * s.channels <= kMostChannels &&
           s.outer >= 64 * together)
      together *= 2;
  return together;
}

// Two numbers for each channel and block, joined in the end into block 0's.
struct Parts {
  double *first, *second;
  int64_t channel_step, block_step;
};

class ChannelPass {
 public:
  ChannelPass(const ChannelSpace& space, DType dtype, const ChannelKernel (&kernels)[2][kDTypes],
              const Parts& parts = {}, const uint8_t* relu_mask = nullptr);

  // An array that takes part, if it is there.
  void reads(Rows ChannelPiece::* place, const ChannelArray& a) { add({place, &a, false}); }
  void writes(Rows ChannelPiece::* place, const ChannelArray& a) { add({place, &a, true}); }
  int arrays() const { return count_; }

  // Whether all rows that are written can be streamed, which one after another share cache lines.
  bool writes_words() const;

  // From the last block to the first: what a reduction has read last is what the cache still holds. Not
  // for rows, of which that is the end of them all: on two threads it takes up to 1.1 times as long.
  bool reversed = false;

  // What all pieces have alike, constants from channel 0 on.
  ChannelPiece piece{};

  // Channels [c0, c1) of blocks [b0, b1).
  void operator()(int64_t c0, int64_t c1, int64_t b0, int64_t b1) const;

 private:
  struct Operand {
    Rows ChannelPiece::* place;
    const ChannelArray* array;
    bool written;
  };

  // In planes: value `from` of a channel's segment and n - 1 more, and what lies likewise in the next
  // `channels` - 1 channels, and in the next rows - 1 segments.
  struct Stretch {
    int64_t channel, channels, segment, from, n, rows;
  };

  void add(const Operand& o) {
    if (o.array->data) operands_[count_++] = o;
  }
  ChannelPiece start(int64_t channel, int64_t begin) const;
  int64_t blocks_at_once() const;
  bool side_by_side() const;
  bool spreads() const;  // neighboring channels over the rows of a piece
  void planes_together(int64_t c0, int64_t c1, int64_t begin, int64_t end, BlockSums& sums) const;
  void plane(int64_t channel, int64_t begin, int64_t end, BlockSums& sums) const;
  void take(const Stretch&, BlockSums& sums) const;
  void plane_gathered(int64_t channel, int64_t begin, int64_t end, BlockSums& sums) const;
  void rows(int64_t c0, int64_t c1, int64_t begin, int64_t end, BlockSums& sums) const;
  bool widens() const;
  void take_wide(ChannelPiece& piece, int64_t together) const;

  const ChannelSpace& space_;
  int64_t itemsize_;
  ChannelKernel kernels_[2];  // by form
  Parts parts_;               // of a reduction, which takes whole blocks; or nothing
  char* relu_mask_;
  Operand operands_[4];
  int count_ = 0;
};

}  // namespace fastopt::cpu
