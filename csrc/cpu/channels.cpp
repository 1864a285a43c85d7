#include "cpu/channels.hpp"

#include "cpu/nontemporal.hpp"

namespace fastopt::cpu {

ChannelPass::ChannelPass(const ChannelSpace& space, DType dtype,
                         const ChannelKernel (&kernels)[kForms][kDTypes], const PartialsView& partials,
                         const uint8_t* relu_mask)
    : space_(space),
      itemsize_(int64_t(bytes_of(dtype))),
      kernels_{kernels[0][int(dtype)], kernels[1][int(dtype)]},
      partials_(partials),
      relu_mask_(reinterpret_cast<char*>(const_cast<uint8_t*>(relu_mask))) {}

bool ChannelPass::can_store_nontemporal() const {
  const int64_t row = (space_.rows ? space_.channels : space_.inner) * itemsize_;
  const auto is_whole = [](int64_t stride) { return stride % kWord == 0; };
  return std::all_of(operands_, operands_ + count_, [&](const Operand& o) {
    const ChannelArray& a = *o.array;
    return !o.written || (consists_of_words(a.data, row) && (space_.rows || is_whole(a.channel)) &&
                          std::all_of(a.stride, a.stride + space_.ndim, is_whole));
  });
}

ChannelPiece ChannelPass::make_piece(int64_t channel, int64_t begin) const {
  ChannelPiece p = piece;
  for (const double*& constant : p.constants)
    if (constant) constant += channel;
  if (relu_mask_)
    p.relu_mask = {relu_mask_ + (space_.rows ? begin * space_.mask_row_bytes() + channel / 8
                                             : channel * space_.mask_row_bytes() + begin / 8),
                   space_.mask_row_bytes()};
  if (partials_.first) {
    const int64_t block = begin / block_of(space_);
    const int64_t offset = channel * partials_.channel_stride + block * partials_.block_stride;
    p.first = partials_.first + offset;
    p.second = partials_.second + offset;
    p.from = begin - block * block_of(space_);
    p.size = std::min(block_of(space_), space_.count() - block * block_of(space_));
  }
  return p;
}

// Where nothing is summed a piece may be longer than a block, because each piece converts its
// constants.
int64_t ChannelPass::blocks_per_piece() const {
  constexpr int64_t elements = 32768;
  return partials_.first || !space_.rows ? 1 : 1 + elements / (block_of(space_) * space_.channels);
}

void ChannelPass::operator()(int64_t c0, int64_t c1, int64_t b0, int64_t b1) const {
  BlockSums sums;
  const bool merges = c1 - c0 > 1 && can_merge_channels(), backwards = reversed && !space_.rows;
  for (int64_t done = 0, blocks; done < b1 - b0; done += blocks) {
    blocks = std::min(blocks_per_piece(), b1 - b0 - done);
    const int64_t begin = (backwards ? b1 - done - blocks : b0 + done) * block_of(space_);
    const int64_t end = std::min(begin + blocks * block_of(space_), space_.count());
    if (space_.rows) {
      for (int64_t c = c0; c < c1; c += kMaxPieceWidth)
        run_rows(c, std::min(c + kMaxPieceWidth, c1), begin, end, sums);
    } else if (merges) {
      run_merged_planes(c0, c1, begin, end, sums);
    } else {
      for (int64_t c = c0; c < c1; ++c) run_plane(c, begin, end, sums);
    }
  }
  if (piece.nontemporal) nontemporal_fence();
}

// Whether elements of neighboring channels are adjacent in memory, so that they can be processed as
// rows of more channels, or of more rows.
bool ChannelPass::is_contiguous() const {
  return std::all_of(operands_, operands_ + count_, [&](const Operand& o) {
    const ChannelArray& a = *o.array;
    return space_.rows ? even_stride(space_, a) == space_.channels * itemsize_
                       : a.channel == space_.inner * itemsize_;
  });
}

}  // namespace fastopt::cpu
