#include "cpu/channels.hpp"

#include <algorithm>
#include <cstring>

#include "cpu/lists.hpp"
#include "cpu/stream.hpp"

namespace fastopt::cpu {
namespace {

// Where index `outer` of the axes that are walked lies, for one channel.
char* at(const ChannelSpace& s, const ChannelArray& a, int64_t channel, int64_t outer) {
  char* p = a.data + channel * a.channel;
  for (int d = s.ndim - 1; d > 0; outer /= s.shape[d--]) p += outer % s.shape[d] * a.stride[d];
  return s.ndim > 0 ? p + outer * a.stride[0] : p;
}

// How many rows or segments follow each other at one distance, and what distance that is.
int64_t even(const ChannelSpace& s) { return s.ndim > 1 ? s.shape[s.ndim - 1] : s.outer; }
int64_t step(const ChannelSpace& s, const ChannelArray& a) {
  return s.ndim > 0 ? a.stride[s.ndim - 1] : 0;
}

// Calls visit(segment, from, n, rows) for the parts of values [begin, end) of a channel: value `from`
// of a segment and n - 1 more, and what lies likewise in the rows - 1 segments after it, at even
// distances.
template <class Visit>
void each_part(const ChannelSpace& s, int64_t begin, int64_t end, Visit&& visit) {
  const int64_t inner = s.inner, first = ceil_div(begin, inner), last = end / inner;
  if (first > last) return visit(last, begin % inner, end - begin, 1);
  if (begin < first * inner) visit(first - 1, begin % inner, first * inner - begin, 1);
  if (first < last)
    each_run(even(s), first, last, [&](int64_t run, int64_t from, int64_t rows) {
      visit(run * even(s) + from, 0, inner, rows);
    });
  if (last * inner < end) visit(last, 0, end - last * inner, 1);
}

// Segments shorter than this are gathered: of a reduction, whose lanes do not pay for so few values,
// and of a pass with bits, which has them in lines by channel.
constexpr int64_t kShortToSum = 256, kShortWithBits = 64;
// So many bytes of an array at a time: a thread's stack may be short, and more of them gain little.
constexpr int64_t kGathered = 8192;
// Of any other pass, segments shorter than a tile are taken together with those of the next channels.
constexpr int64_t kShort = 128;

// A stretch of `size` bytes or more; the last ones may be copied twice.
template <int size>
inline void copy_by(char* to, const char* from, int64_t bytes) {
  for (int64_t i = 0; i + size < bytes; i += size) memcpy(to + i, from + i, size);
  memcpy(to + bytes - size, from + bytes - size, size);
}

// A few elements, of which a call of memcpy would be the longest part: moments of (2000, 4, 8) take 0.7
// of the time, of (128, 512, 4, 4) in float32 0.75 (Zen 4).
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

ChannelPass::ChannelPass(const ChannelSpace& space, DType dtype,
                         const ChannelKernel (&kernels)[2][kDTypes], const Parts& parts,
                         const uint8_t* relu_mask)
    : space_(space),
      itemsize_(int64_t(bytes_of(dtype))),
      kernels_{kernels[0][int(dtype)], kernels[1][int(dtype)]},
      parts_(parts),
      relu_mask_(reinterpret_cast<char*>(const_cast<uint8_t*>(relu_mask))) {}

bool ChannelPass::writes_words() const {
  const int64_t row = (space_.rows ? space_.channels : space_.inner) * itemsize_;
  const auto whole = [](int64_t step) { return step % kWord == 0; };
  return std::all_of(operands_, operands_ + count_, [&](const Operand& o) {
    const ChannelArray& a = *o.array;
    return !o.written || (in_words(a.data, row) && (space_.rows || whole(a.channel)) &&
                          std::all_of(a.stride, a.stride + space_.ndim, whole));
  });
}

ChannelPiece ChannelPass::start(int64_t channel, int64_t begin) const {
  ChannelPiece p = piece;
  for (const double*& constant : p.constants)
    if (constant) constant += channel;
  if (relu_mask_)
    p.relu_mask = {relu_mask_ + (space_.rows ? begin * space_.line_bytes() + channel / 8
                                             : channel * space_.line_bytes() + begin / 8),
                   space_.line_bytes()};
  if (parts_.first) {
    const int64_t block = begin / block_of(space_);
    const int64_t own = channel * parts_.channel_step + block * parts_.block_step;
    p.first = parts_.first + own;
    p.second = parts_.second + own;
    p.from = begin - block * block_of(space_);
    p.size = std::min(block_of(space_), space_.count() - block * block_of(space_));
  }
  return p;
}

// Where nothing is summed a piece may be longer than a block. Each piece converts its constants.
int64_t ChannelPass::blocks_at_once() const {
  constexpr int64_t elements = 32768;
  return parts_.first || !space_.rows ? 1 : 1 + elements / (block_of(space_) * space_.channels);
}

void ChannelPass::operator()(int64_t c0, int64_t c1, int64_t b0, int64_t b1) const {
  BlockSums sums;
  const bool together = c1 - c0 > 1 && spreads(), backwards = reversed && !space_.rows;
  for (int64_t done = 0, blocks; done < b1 - b0; done += blocks) {
    blocks = std::min(blocks_at_once(), b1 - b0 - done);
    const int64_t begin = (backwards ? b1 - done - blocks : b0 + done) * block_of(space_);
    const int64_t end = std::min(begin + blocks * block_of(space_), space_.count());
    if (space_.rows) {
      for (int64_t c = c0; c < c1; c += kMostChannels)
        rows(c, std::min(c + kMostChannels, c1), begin, end, sums);
    } else if (together) {
      planes_together(c0, c1, begin, end, sums);
    } else {
      for (int64_t c = c0; c < c1; ++c) plane(c, begin, end, sums);
    }
  }
  if (piece.streams) finish_streams();
}

// Whether elements of neighboring channels follow each other without gaps, and may be taken as rows of
// more channels, or of more rows.
bool ChannelPass::side_by_side() const {
  return std::all_of(operands_, operands_ + count_, [&](const Operand& o) {
    const ChannelArray& a = *o.array;
    return space_.rows ? step(space_, a) == space_.channels * itemsize_
                       : a.channel == space_.inner * itemsize_;
  });
}

// ---- planes ----

bool ChannelPass::spreads() const {
  return !space_.rows && !parts_.first && !relu_mask_ && space_.inner < kShort && side_by_side();
}

// The segments that begin in [begin, end), in the order of memory.
void ChannelPass::planes_together(int64_t c0, int64_t c1, int64_t begin, int64_t end,
                                  BlockSums& sums) const {
  const int64_t inner = space_.inner, channels = kMostChannels / inner;
  const int64_t first = ceil_div(begin, inner), last = ceil_div(end, inner);
  for (int64_t c = c0; c < c1; c += channels)
    each_run(even(space_), first, last, [&](int64_t run, int64_t from, int64_t rows) {
      const int64_t segment = run * even(space_) + from;
      take({c, std::min(channels, c1 - c), segment, 0, inner, rows}, sums);
    });
}

void ChannelPass::plane(int64_t channel, int64_t begin, int64_t end, BlockSums& sums) const {
  const auto rows_of = [&](int64_t segment, int64_t from, int64_t n, int64_t rows) {
    take({channel, 1, segment, from, n, rows}, sums);
  };
  const int64_t inner = space_.inner, least = parts_.first ? kShortToSum
                                              : relu_mask_ ? kShortWithBits
                                                           : 0;
  const bool apart = begin / inner < (end - 1) / inner, bits_fit = !relu_mask_ || inner % 8 == 0;
  if (apart && (inner < least || !bits_fit))
    for (int64_t from = begin, most = kGathered / itemsize_; from < end; from += most)
      plane_gathered(channel, from, std::min(from + most, end), sums);
  else if (parts_.first)
    each_run(inner, begin, end,
             [&](int64_t segment, int64_t from, int64_t n) { rows_of(segment, from, n, 1); });
  else  // as rows of one piece: there may be many, and short ones
    each_part(space_, begin, end, rows_of);
}

void ChannelPass::take(const Stretch& s, BlockSums& sums) const {
  ChannelPiece p = start(s.channel, s.segment * space_.inner + s.from);
  p.sums = &sums;
  p.rows = s.rows;
  p.n = s.n * s.channels;
  p.run = s.n;
  p.relu_mask.step = space_.inner / 8;
  for (const Operand* o = operands_; o < operands_ + count_; ++o)
    p.*(o->place) = {at(space_, *o->array, s.channel, s.segment) + s.from * itemsize_,
                     step(space_, *o->array)};
  kernels_[s.channels > 1](p);
}

// Values that lie in several segments, as many as a room holds.
void ChannelPass::plane_gathered(int64_t channel, int64_t begin, int64_t end, BlockSums& sums) const {
  alignas(64) char rooms[4][kGathered];
  ChannelPiece p = start(channel, begin);
  p.sums = &sums;
  p.streams = false;
  p.rows = 1;
  p.n = end - begin;
  const auto each_segment = [&](const Operand& o, auto&& copy) {
    char* room = rooms[&o - operands_];
    each_part(space_, begin, end, [&](int64_t segment, int64_t from, int64_t n, int64_t rows) {
      char* array = at(space_, *o.array, channel, segment) + from * itemsize_;
      const int64_t bytes = n * itemsize_, stride = step(space_, *o.array);
      for (int64_t row = 0; row < rows; ++row, array += stride, room += bytes) copy(array, room, bytes);
    });
  };
  for (const Operand* o = operands_; o < operands_ + count_; ++o) {
    p.*(o->place) = {rooms[o - operands_], 0};
    if (!o->written)
      each_segment(*o, [](const char* array, char* room, int64_t bytes) {
        fetch(array + bytes, bytes + 63);  // of the next channel, which mostly lies there
        copy_short(room, array, bytes);
      });
  }
  kernels_[0](p);
  for (const Operand* o = operands_; o < operands_ + count_; ++o)
    if (o->written)
      each_segment(
          *o, [](char* array, const char* room, int64_t bytes) { copy_short(array, room, bytes); });
}

// ---- rows ----

// Whether short rows may be taken as long ones, whose bits are lines if they do not fill whole bytes.
bool ChannelPass::widens() const {
  const bool lines = relu_mask_ && space_.channels % 8 != 0;
  return !parts_.first && side_by_side() && (!lines || space_.channels <= kLongestLine);
}

// Takes rows off the piece, `together` at a time, as long as there are so many.
void ChannelPass::take_wide(ChannelPiece& p, int64_t together) const {
  ChannelPiece wide = p;
  wide.rows = p.rows / together;
  wide.n = p.n * together;
  const auto move = [&](Rows& own, Rows& rest) {
    own.step *= together;
    rest.data += wide.rows * own.step;
  };
  for (const Operand* o = operands_; o < operands_ + count_; ++o) move(wide.*(o->place), p.*(o->place));
  if (relu_mask_) move(wide.relu_mask, p.relu_mask);
  if (space_.channels % 8 != 0) wide.lines = together;
  p.rows -= wide.rows * together;
  kernels_[1](wide);
}

void ChannelPass::rows(int64_t c0, int64_t c1, int64_t begin, int64_t end, BlockSums& sums) const {
  each_run(even(space_), begin, end, [&](int64_t run, int64_t from, int64_t n) {
    ChannelPiece p = start(c0, run * even(space_) + from);
    p.sums = &sums;
    p.rows = n;
    p.n = c1 - c0;
    for (const Operand* o = operands_; o < operands_ + count_; ++o)
      p.*(o->place) = {at(space_, *o->array, c0, run * even(space_) + from), step(space_, *o->array)};
    const int64_t together = widens() ? rows_together(space_) : 1;
    if (together > 1 && n >= together) take_wide(p, together);
    if (p.rows > 0) kernels_[1](p);
  });
}

}  // namespace fastopt::cpu
