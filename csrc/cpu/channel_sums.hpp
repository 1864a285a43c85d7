// The part that is common to all of BatchNorm's sums, forward and backward: the quarters of a block. In
// an unnamed namespace, for the reason given in tile.hpp.
#pragma once

#include "cpu/channel_piece.hpp"
#include "rules/moments.hpp"

namespace fastopt::cpu {
namespace {

inline bool opens(const ChannelPiece& p) { return p.from == 0; }
inline bool closes(const ChannelPiece& p, int64_t values) { return p.from + values == p.size; }

inline void clear(double* sums, int64_t n) { memset(sums, 0, n * sizeof(double)); }

// Clears the sums of `n` lanes or channels if a block begins.
inline void open_block(const ChannelPiece& p, int64_t n) {
  if (!opens(p)) return;
  clear(p.sums->first_before, n);
  clear(p.sums->second_before, n);
}

// Adds a completed quarter to the sums of those before.
inline FASTOPT_INLINE void close_quarter(BlockSums& sums, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    sums.first_before[i] += sums.first[i];
    sums.second_before[i] += sums.second[i];
  }
}

// Calls visit(begin, end, opens, closes) for the part of a piece of `values` values in each quarter of
// its block. The flags tell whether the quarter begins or ends there.
template <int block, class Visit>
inline FASTOPT_INLINE void each_quarter(const ChannelPiece& p, int64_t values, Visit&& visit) {
  constexpr int64_t quarter = block / kQuarters;
  for (int64_t begin = 0; begin < values;) {
    const int64_t done = (p.from + begin) % quarter, left = values - begin;
    const int64_t end = begin + (quarter - done < left ? quarter - done : left);
    visit(begin, end, done == 0, (p.from + end) % quarter == 0 || closes(p, end));
    begin = end;
  }
}

}  // namespace
}  // namespace fastopt::cpu
