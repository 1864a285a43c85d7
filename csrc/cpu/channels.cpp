#include "cpu/channels.hpp"

#include <algorithm>
#include <cstring>

#include "cpu/stream.hpp"

namespace fastopt::cpu {
namespace {

// Where index `outer` of the axes that are walked lies, for one channel.
char* at(const ChannelSpace& s, const ChannelArray& a, int64_t channel, int64_t outer) {
  char* p = a.data + channel * a.channel;
  for (int d = s.ndim - 1; d > 0; outer /= s.shape[d--]) p += outer % s.shape[d] * a.stride[d];
  return s.ndim > 0 ? p + outer * a.stride[0] : p;
}

// Calls visit(index, from, n) for each part of [begin, end) in one of the runs of `length`.
template <class Visit>
void each_run(int64_t length, int64_t begin, int64_t end, Visit&& visit) {
  int64_t index = begin / length, from = begin % length;
  for (; begin < end; ++index, from = 0) {
    const int64_t n = std::min(length - from, end - begin);
    visit(index, from, n);
    begin += n;
  }
}

bool in_one_run(int64_t length, int64_t begin, int64_t end) {
  return begin / length == (end - 1) / length;
}

// How many rows or segments follow each other at one distance, and what distance that is.
int64_t even(const ChannelSpace& s) { return s.ndim > 1 ? s.shape[s.ndim - 1] : s.outer; }
int64_t step(const ChannelSpace& s, const ChannelArray& a) {
  return s.ndim > 0 ? a.stride[s.ndim - 1] : 0;
}

// Segments shorter than this are gathered for a reduction: its lanes do not pay for so few values.
constexpr int64_t kShort = 256;

}  // namespace

ChannelPass::ChannelPass(const ChannelSpace& space, DType dtype,
                         const ChannelKernel (&kernels)[2][kDTypes], const Parts& parts,
                         const uint8_t* kept)
    : space_(space),
      itemsize_(int64_t(bytes_of(dtype))),
      kernel_(kernels[space.rows][int(dtype)]),
      parts_(parts),
      kept_(reinterpret_cast<char*>(const_cast<uint8_t*>(kept))) {}

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
  if (kept_)
    p.kept = {kept_ + (space_.rows ? begin * space_.line_bytes() + channel / 8
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

void ChannelPass::operator()(int64_t c0, int64_t c1, int64_t b0, int64_t b1) const {
  BlockSums sums;
  for (int64_t i = 0; i < b1 - b0; ++i) {
    const int64_t begin = (reversed ? b1 - 1 - i : b0 + i) * block_of(space_);
    const int64_t end = std::min(begin + block_of(space_), space_.count());
    if (space_.rows) {
      for (int64_t c = c0; c < c1; c += kMostChannels)
        rows(c, std::min(c + kMostChannels, c1), begin, end, sums);
    } else {
      planes(c0, c1, begin, end, sums);
    }
  }
  if (piece.streams) finish_streams();
}

// ---- planes ----

void ChannelPass::planes(int64_t c0, int64_t c1, int64_t begin, int64_t end, BlockSums& sums) const {
  const bool bits_fit = !kept_ || space_.inner % 8 == 0;
  const bool in_parts = bits_fit && (!parts_.first || space_.inner >= kShort);
  if (in_parts && !parts_.first && c1 - c0 > 1)  // in the order of memory
    return each_run(space_.inner, begin, end, [&](int64_t segment, int64_t from, int64_t n) {
      take({c0, segment, from, c1 - c0, n, true}, sums);
    });
  for (int64_t c = c0; c < c1; ++c) {
    if (in_parts || in_one_run(space_.inner, begin, end))
      plane(c, begin, end, sums);
    else
      plane_gathered(c, begin, end, sums);
  }
}

void ChannelPass::plane(int64_t channel, int64_t begin, int64_t end, BlockSums& sums) const {
  const auto rows_of = [&](int64_t segment, int64_t from, int64_t n, int64_t rows) {
    take({channel, segment, from, rows, n, false}, sums);
  };
  if (parts_.first) {
    each_run(space_.inner, begin, end,
             [&](int64_t segment, int64_t from, int64_t n) { rows_of(segment, from, n, 1); });
    return;
  }
  // Whole segments at even distances are rows of one piece: there may be many, and short ones.
  const int64_t inner = space_.inner, first = (begin + inner - 1) / inner, last = end / inner;
  if (first > last) return rows_of(last, begin % inner, end - begin, 1);
  if (begin < first * inner) rows_of(first - 1, begin % inner, first * inner - begin, 1);
  if (first < last)
    each_run(even(space_), first, last, [&](int64_t run, int64_t from, int64_t rows) {
      rows_of(run * even(space_) + from, 0, inner, rows);
    });
  if (last * inner < end) rows_of(last, 0, end - last * inner, 1);
}

void ChannelPass::take(const Stretch& s, BlockSums& sums) const {
  ChannelPiece p = start(s.channel, s.segment * space_.inner + s.from);
  p.sums = &sums;
  p.rows = s.rows;
  p.n = s.n;
  p.across = s.across;
  if (!s.across) p.kept.step = space_.inner / 8;
  for (const Operand* o = operands_; o < operands_ + count_; ++o) {
    const ChannelArray& a = *o->array;
    p.*(o->place) = {at(space_, a, s.channel, s.segment) + s.from * itemsize_,
                     s.across ? a.channel : step(space_, a)};
  }
  kernel_(p);
}

// A block whose values lie in several segments.
void ChannelPass::plane_gathered(int64_t channel, int64_t begin, int64_t end, BlockSums& sums) const {
  alignas(64) char rooms[4][kPlaneBlock * 8];
  ChannelPiece p = start(channel, begin);
  p.sums = &sums;
  p.streams = false;
  p.rows = 1;
  p.n = end - begin;
  const auto each_segment = [&](const Operand& o, auto&& copy) {
    char* room = rooms[&o - operands_];
    each_run(space_.inner, begin, end, [&](int64_t segment, int64_t from, int64_t n) {
      copy(at(space_, *o.array, channel, segment) + from * itemsize_, room, n * itemsize_);
      room += n * itemsize_;
    });
  };
  for (const Operand* o = operands_; o < operands_ + count_; ++o) {
    p.*(o->place) = {rooms[o - operands_], 0};
    if (!o->written)
      each_segment(*o, [](char* array, char* room, int64_t n) { memcpy(room, array, n); });
  }
  kernel_(p);
  for (const Operand* o = operands_; o < operands_ + count_; ++o)
    if (o->written)
      each_segment(*o, [](char* array, char* room, int64_t n) { memcpy(array, room, n); });
}

// ---- rows ----

// Whether rows follow each other without gaps, and may be taken as longer ones.
bool ChannelPass::side_by_side() const {
  return !parts_.first && (!kept_ || space_.channels % 8 == 0) &&
         std::all_of(operands_, operands_ + count_, [&](const Operand& o) {
           return step(space_, *o.array) == space_.channels * itemsize_;
         });
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
  if (kept_) move(wide.kept, p.kept);
  p.rows -= wide.rows * together;
  kernel_(wide);
}

void ChannelPass::rows(int64_t c0, int64_t c1, int64_t begin, int64_t end, BlockSums& sums) const {
  each_run(even(space_), begin, end, [&](int64_t run, int64_t from, int64_t n) {
    ChannelPiece p = start(c0, run * even(space_) + from);
    p.sums = &sums;
    p.rows = n;
    p.n = c1 - c0;
    for (const Operand* o = operands_; o < operands_ + count_; ++o)
      p.*(o->place) = {at(space_, *o->array, c0, run * even(space_) + from), step(space_, *o->array)};
    const int64_t together = side_by_side() ? rows_together(space_) : 1;
    if (together > 1 && n >= together) take_wide(p, together);
    if (p.rows > 0) kernel_(p);
  });
}

}  // namespace fastopt::cpu
