// The part that is common to all of BatchNorm's sums, forward and backward: the quarters of a block,
// and rows read as vectors. In an unnamed namespace, for the reason given in tile.hpp.
#pragma once

#include "cpu/channel_piece.hpp"
#include "cpu/vectors.hpp"
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

// Reads a row as vectors: the array itself or, where its storage cannot be loaded in vectors, tiles.
template <class P>
class VectorReader {
 public:
  static constexpr bool direct = kLoadsVectors<P>;

  // The next n elements of a row, from the i-th on.
  void open(const void* row, int64_t i, int n) {
    if constexpr (direct)
      values_ = at(row, i * int64_t(sizeof(P)));
    else
      values_ = reinterpret_cast<const char*>(tile_.open(row, i, n));
  }

  // The values of `count` of them, from the j-th on.
  template <int count>
  inline FASTOPT_INLINE Vector<Compute<P>, count> values(int64_t j) const {
    return load<count, std::conditional_t<direct, P, Compute<P>>>(values_, j);
  }

 private:
  struct None {};
  const char* values_;
  std::conditional_t<direct, None, Tile<P>> tile_;
};

// Reads dy, with zeros where ReLU has blocked the value, if there was a ReLU.
template <class P, bool relu>
class GradReader : public VectorReader<P> {
 public:
  void open(const ChannelPiece& p, int64_t row, int64_t i, int n) {
    VectorReader<P>::open(row_of(p.dy, row), i, n);
  }
};
template <class P>
class GradReader<P, true> : public VectorReader<Compute<P>> {
 public:
  static constexpr bool direct = false;

  void open(const ChannelPiece& p, int64_t row, int64_t i, int n) {
    VectorReader<Compute<P>>::open(passed_.open(p, row, i, n), 0, n);
  }

 private:
  MaskedTiles<P, true> passed_;
};

}  // namespace
}  // namespace fastopt::cpu
