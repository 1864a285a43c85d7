// Rows: the elements of all channels are adjacent, and a channel's values are one row apart.
#include "cpu/channels.hpp"
#include "cpu/work_split.hpp"

namespace fastopt::cpu {

// Whether several short rows can be processed as one long row. A ReLU mask of rows that do not fill
// whole bytes must be repacked for it.
bool ChannelPass::can_merge_rows() const {
  const bool repacks = relu_mask_ && space_.channels % 8 != 0;
  return !partials_.first && is_contiguous() && (!repacks || space_.channels <= kMaxMaskRowBits);
}

// Removes rows from the piece and processes them, `together` as one, while that many are left.
void ChannelPass::run_merged_rows(ChannelPiece& p, int64_t together) const {
  ChannelPiece merged = p;
  merged.rows = p.rows / together;
  merged.n = p.n * together;
  const auto split = [&](Rows& first, Rows& remaining) {
    first.stride *= together;
    remaining.data += merged.rows * first.stride;
  };
  for (const Operand* o = operands_; o < operands_ + count_; ++o)
    split(merged.*(o->place), p.*(o->place));
  if (relu_mask_) split(merged.relu_mask, p.relu_mask);
  if (space_.channels % 8 != 0) merged.mask_rows = together;
  p.rows -= merged.rows * together;
  run(Form::multi, merged);
}

void ChannelPass::run_rows(int64_t c0, int64_t c1, int64_t begin, int64_t end, BlockSums& sums) const {
  const int64_t even = rows_at_even_stride(space_);
  each_run(even, begin, end, [&](int64_t run_index, int64_t from, int64_t n) {
    const int64_t row = run_index * even + from;
    ChannelPiece p = make_piece(c0, row);
    p.sums = &sums;
    p.rows = n;
    p.n = c1 - c0;
    for (const Operand* o = operands_; o < operands_ + count_; ++o)
      p.*(o->place) = {address_of(space_, *o->array, c0, row), even_stride(space_, *o->array)};
    const int64_t together = can_merge_rows() ? rows_per_batch(space_) : 1;
    if (together > 1 && n >= together) run_merged_rows(p, together);
    if (p.rows > 0) run(Form::multi, p);
  });
}

}  // namespace fastopt::cpu
