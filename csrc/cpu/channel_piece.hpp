// Iteration over a piece of BatchNorm's work, for one instruction set. In an unnamed namespace, for the
// reason given in tile.hpp.
#pragma once

#include "cpu/bits.hpp"
#include "cpu/kernels.hpp"

namespace fastopt::cpu {
namespace {

// The constants for the elements of a row, in the order in which the loops read them.
template <Form form, class F, int count>
class ChannelConstants {
 public:
  ChannelConstants(const ChannelPiece& p) {
    const int64_t run = form == Form::multi ? p.run : 1, channels = form == Form::multi ? p.n / run : 1;
    for (int k = 0; k < count; ++k)
      run == 1 ? convert(p.constants[k], channels, values_[k])
               : spread(p.constants[k], channels, run, values_[k]);
  }
  const F* operator[](int k) const { return values_[k]; }

 private:
  static void convert(const double* from, int64_t channels, F* to) {
    for (int64_t c = 0; c < channels; ++c) to[c] = F(from[c]);
  }
  static void spread(const double* from, int64_t channels, int64_t run, F* to) {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < run; ++i) *to++ = F(from[c]);
  }

  alignas(64) F values_[count][form == Form::single ? 1 : kMaxPieceWidth];
};

// The index of the constant for element i of a row.
template <Form form>
constexpr int64_t channel(int64_t i) {
  return form == Form::multi ? i : 0;
}

template <class P, class Visit>
inline FASTOPT_INLINE void each_row_tile(const ChannelPiece& p, Visit&& visit) {
  for (int64_t row = 0; row < p.rows; ++row)
    each_tile<P>(0, p.n, [&](int64_t i, int n) FASTOPT_INLINE { visit(row, i, n); });
}

// Whether a row can be read in place, without tiles.
template <class P>
bool in_place(const Rows& a) {
  return std::is_same_v<P, Compute<P>> && aligned(a.data, alignof(P));
}

template <class P, class Visit>
inline FASTOPT_INLINE void each_stretch(bool at_once, int64_t begin, int64_t end, Visit&& visit) {
  at_once ? visit(begin, int(end - begin)) : each_tile<P>(begin, end, visit);
}

inline char* row_of(const Rows& a, int64_t row) { return a.data + row * a.stride; }

// Prefetches upcoming data: the hardware prefetcher does not recognize loops that read a tile, or four
// rows, at a time. From DRAM, moments of 64 channels take 1.45 times as long without this (Zen 4). In
// rows layout the distance is kRowsAhead elements; rows that consist of runs are long and far apart, so
// there the next row is prefetched.
inline constexpr int64_t kRowsAhead = 2048;
template <Form form, class P>
inline FASTOPT_INLINE void prefetch_ahead(const ChannelPiece& p, const Rows& a, int64_t row, int64_t i,
                                          int n) {
  const char* from = form == Form::single ? row_of(a, row) + kAhead
                     : p.run > 1          ? row_of(a, row + 1)
                                          : row_of(a, row) + kRowsAhead * int64_t(sizeof(P));
  prefetch(from + i * int64_t(sizeof(P)), n * int64_t(sizeof(P)));
}

// Converts n elements to contiguous values.
template <class P>
void copy_row(const char* from, int64_t n, Tile<P>& tile, Compute<P>* to) {
  each_tile<P>(0, n, [&](int64_t i, int m) FASTOPT_INLINE {
    memcpy(to + i, tile.open(from, i, m), m * sizeof(Compute<P>));
  });
}

// Writes the mask of a row, tile by tile.
template <class F>
class ReluMaskWriter {
 public:
  void put(const ChannelPiece& p, int64_t row, int64_t i, int n, const F* values) {
    char* bits = row_of(p.relu_mask, row);
    if (p.mask_rows == 1) return pack_mask(values, n, bits + i / 8);
    memcpy(row_ + i, values, n * sizeof(F));
    if (i + n == p.n) pack_mask_rows(row_, p.mask_rows, int(p.n / p.mask_rows), bits);
  }

 private:
  alignas(64) F row_[kMaxPieceWidth];
};

// Tiles of dy, with zeros where ReLU has blocked the value, if there was a ReLU.
template <class P, bool relu>
class MaskedTiles {
  using F = Compute<P>;

 public:
  const F* open(const ChannelPiece& p, int64_t row, int64_t i, int n) {
    const F* dy = tile_.open(row_of(p.dy, row), i, n);
    if constexpr (relu) apply_mask(dy, row_of(p.relu_mask, row) + i / 8, n, masked_);
    return relu ? masked_ : dy;
  }

 private:
  Tile<P> tile_;
  alignas(64) F masked_[relu ? kTileOf<P> : 1];
};

// The same for rows whose mask may have several rows; the tiles of a row must be opened in order.
template <class P, bool relu>
class MaskedRow {
  using F = Compute<P>;

 public:
  const F* open(const ChannelPiece& p, int64_t row, int64_t i, int n) {
    if (!relu || p.mask_rows == 1) return tiles_.open(p, row, i, n);
    if (i == 0) open_repacked(p, row);
    return masked_ + i;
  }

 private:
  void open_repacked(const ChannelPiece& p, int64_t row) {
    copy_row(row_of(p.dy, row), p.n, tile_, row_);
    apply_mask_rows(row_, row_of(p.relu_mask, row), p.mask_rows, int(p.n / p.mask_rows), masked_);
  }

  static constexpr int width = relu ? kMaxPieceWidth : 1;
  MaskedTiles<P, relu> tiles_;
  Tile<P> tile_;
  alignas(64) F row_[width], masked_[width + 8];
};

}  // namespace
}  // namespace fastopt::cpu
