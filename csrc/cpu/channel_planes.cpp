// Planes: the values of a channel are segments of `inner` contiguous elements.
#include <cstring>

#include "cpu/channels.hpp"
#include "cpu/prefetch.hpp"
#include "cpu/work_split.hpp"

namespace fastopt::cpu {
namespace {

// Calls visit(segment, from, n, rows) for the parts of values [begin, end) of a channel: elements
// [from, from + n) of `rows` consecutive segments, which are a constant stride apart.
template <class Visit>
void each_part(const ChannelSpace& s, int64_t begin, int64_t end, Visit&& visit) {
  const int64_t inner = s.inner, first = ceil_div(begin, inner), last = end / inner;
  if (first > last) return visit(last, begin % inner, end - begin, 1);
  if (begin < first * inner) visit(first - 1, begin % inner, first * inner - begin, 1);
  if (first < last)
    each_run(rows_at_even_stride(s), first, last, [&](int64_t run, int64_t from, int64_t rows) {
      visit(run * rows_at_even_stride(s) + from, 0, inner, rows);
    });
  if (last * inner < end) visit(last, 0, end - last * inner, 1);
}

// Segments shorter than this are gathered first: for reductions, because the lanes are not worth
// filling for so few values; for passes with ReLU masks, because the mask is stored per channel.
constexpr int64_t kShortToSum = 256, kShortWithMask = 64;
// Bytes of an array that are gathered at a time. A thread's stack may be small, and more gain little.
constexpr int64_t kGatheredBytes = 8192;
// In all other passes, segments shorter than this are processed together with those of the next
// channels.
constexpr int64_t kShort = kTile;

// Copies `size` bytes or more in steps of `size`; the last bytes may be copied twice.
template <int size>
inline void copy_by(char* to, const char* from, int64_t bytes) {
  for (int64_t i = 0; i + size < bytes; i += size) memcpy(to + i, from + i, size);
  memcpy(to + bytes - size, from + bytes - size, size);
}

// Copies a few elements, for which a call of memcpy would take most of the time: moments of (2000, 4,
// 8) take 0.7x the time, of (128, 512, 4, 4) in float32 0.75x (Zen 4).
inline void copy_short(char* to, const char* from, int64_t bytes) {
  if (bytes >= 16)
    copy_by<16>(to, from, bytes);
  else if (bytes >= 8)
    copy_by<8>(to, from, bytes);
  else if (bytes >= 4)
    copy_by<4>(to, from, bytes);
  else
    copy_by<2>(to, from, bytes);
}

}  // namespace

bool ChannelPass::can_merge_channels() const {
  return !space_.rows && !partials_.first && !relu_mask_ && space_.inner < kShort && is_contiguous();
}

// The segments that begin in [begin, end), in memory order.
void ChannelPass::run_merged_planes(int64_t c0, int64_t c1, int64_t begin, int64_t end,
                                    BlockSums& sums) const {
  const int64_t inner = space_.inner, channels = kMaxPieceWidth / inner;
  const int64_t first = ceil_div(begin, inner), last = ceil_div(end, inner);
  const int64_t even = rows_at_even_stride(space_);
  for (int64_t c = c0; c < c1; c += channels)
    each_run(even, first, last, [&](int64_t run, int64_t from, int64_t rows) {
      run_segments({c, std::min(channels, c1 - c), run * even + from, 0, inner, rows}, sums);
    });
}

void ChannelPass::run_plane(int64_t channel, int64_t begin, int64_t end, BlockSums& sums) const {
  const auto run_part = [&](int64_t segment, int64_t from, int64_t n, int64_t rows) {
    run_segments({channel, 1, segment, from, n, rows}, sums);
  };
  const int64_t inner = space_.inner, least = partials_.first ? kShortToSum
                                              : relu_mask_    ? kShortWithMask
                                                              : 0;
  const bool several = begin / inner < (end - 1) / inner, mask_fits = !relu_mask_ || inner % 8 == 0;
  if (several && (inner < least || !mask_fits))
    for (int64_t from = begin, most = kGatheredBytes / itemsize_; from < end; from += most)
      run_plane_gathered(channel, from, std::min(from + most, end), sums);
  else if (partials_.first)
    each_run(inner, begin, end,
             [&](int64_t segment, int64_t from, int64_t n) { run_part(segment, from, n, 1); });
  else  // as the rows of one piece: there may be many short ones
    each_part(space_, begin, end, run_part);
}

void ChannelPass::run_segments(const Segments& s, BlockSums& sums) const {
  ChannelPiece p = make_piece(s.channel, s.segment * space_.inner + s.from);
  p.sums = &sums;
  p.rows = s.rows;
  p.n = s.n * s.channels;
  p.run = s.n;
  p.relu_mask.stride = space_.inner / 8;
  for (const Operand* o = operands_; o < operands_ + count_; ++o)
    p.*(o->place) = {address_of(space_, *o->array, s.channel, s.segment) + s.from * itemsize_,
                     even_stride(space_, *o->array)};
  run(s.channels > 1 ? Form::multi : Form::single, p);
}

// Values of several segments: at most kGatheredBytes of each array.
void ChannelPass::run_plane_gathered(int64_t channel, int64_t begin, int64_t end,
                                     BlockSums& sums) const {
  alignas(64) char scratch[4][kGatheredBytes];
  ChannelPiece p = make_piece(channel, begin);
  p.sums = &sums;
  p.nontemporal = false;
  p.rows = 1;
  p.n = end - begin;
  const auto each_segment = [&](const Operand& o, auto&& copy) {
    char* gathered = scratch[&o - operands_];
    each_part(space_, begin, end, [&](int64_t segment, int64_t from, int64_t n, int64_t rows) {
      char* array = address_of(space_, *o.array, channel, segment) + from * itemsize_;
      const int64_t bytes = n * itemsize_, stride = even_stride(space_, *o.array);
      for (int64_t row = 0; row < rows; ++row, array += stride, gathered += bytes)
        copy(array, gathered, bytes);
    });
  };
  for (const Operand* o = operands_; o < operands_ + count_; ++o) {
    p.*(o->place) = {scratch[o - operands_], 0};
    if (!o->written)
      each_segment(*o, [](const char* array, char* gathered, int64_t bytes) {
        prefetch(array + bytes, bytes + 63);  // the next channel's segment, which is mostly there
        copy_short(gathered, array, bytes);
      });
  }
  run(Form::single, p);
  for (const Operand* o = operands_; o < operands_ + count_; ++o)
    if (o->written)
      each_segment(*o, [](char* array, const char* gathered, int64_t bytes) {
        copy_short(array, gathered, bytes);
      });
}

}  // namespace fastopt::cpu
