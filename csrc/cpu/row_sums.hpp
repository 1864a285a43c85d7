// BatchNorm's sums over neighboring channels, row by row.
#pragma once

#include "cpu/few_channels.hpp"

namespace fastopt::cpu {
namespace {

// Calls add<count>(row) for rows [row, end), four at a time, so that the sums are loaded and stored a
// quarter as often.
template <class Add>
inline FASTOPT_INLINE void each_four_rows(int64_t row, int64_t end, Add&& add) {
  for (; row + 4 <= end; row += 4) add.template operator()<4>(row);
  for (; row < end; ++row) add.template operator()<1>(row);
}

// Adds the rows of a piece, quarter by quarter of its block.
template <class Add>
inline FASTOPT_INLINE void take_quarters(const ChannelPiece& p, Add&& add) {
  BlockSums& sums = *p.sums;
  open_block(p, p.n);
  each_quarter<kRowBlock>(p, p.rows,
                          [&](int64_t begin, int64_t end, bool fresh, bool last) FASTOPT_INLINE {
                            if (fresh) {
                              clear(sums.first, p.n);
                              clear(sums.second, p.n);
                            }
                            each_four_rows(begin, end, add);
                            if (last) close_quarter(sums, p.n);
                          });
}

// Each channel is summed from its first row to its last.
template <class P>
void moments_multi(const ChannelPiece& p) {
  using F = Compute<P>;
  BlockSums& sums = *p.sums;
  Tile<P> tiles[4];
  if (opens(p))
    each_tile<P>(0, p.n, [&](int64_t i, int n) FASTOPT_INLINE {
      const F* x = tiles[0].open(p.x.data, i, n);
      for (int j = 0; j < n; ++j) sums.pivot[i + j] = double(x[j]);
    });
  const auto take = [&]<int count>(int64_t row) FASTOPT_INLINE {
    each_tile<P>(0, p.n, [&](int64_t i, int n) FASTOPT_INLINE {
      const F* x[count];
      for (int r = 0; r < count; ++r) {
        x[r] = tiles[r].open(row_of(p.x, row + r), i, n);
        prefetch_ahead<Form::multi, P>(p, p.x, row + r, i, n);
      }
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) {
        double sum = sums.first[i + j], square = sums.second[i + j];
        for (int r = 0; r < count; ++r) add_moment(double(x[r][j]), sums.pivot[i + j], sum, square);
        sums.first[i + j] = sum;
        sums.second[i + j] = square;
      }
    });
  };
  is_few<P>(p, p.x) ? moments_of_few<P>(p) : take_quarters(p, take);
  if (!closes(p, p.rows)) return;
  for (int64_t c = 0; c < p.n; ++c) {
    const Moments m =
        moments_about(sums.pivot[c], sums.first_before[c], sums.second_before[c], double(p.size));
    p.first[c] = m.mean;
    p.second[c] = m.m2;
  }
}

template <class P, bool relu>
void reduce_multi(const ChannelPiece& p) {
  using F = Compute<P>;
  const ChannelConstants<Form::multi, F, 1> constants(p);
  BlockSums& sums = *p.sums;
  Tile<P> tiles[4];
  MaskedTiles<P, relu> passed[4];
  const auto take = [&]<int count>(int64_t row) FASTOPT_INLINE {
    each_tile<P>(0, p.n, [&](int64_t i, int n) FASTOPT_INLINE {
      const F *x[count], *dy[count], *mean = constants[0] + i;
      for (int r = 0; r < count; ++r) {
        x[r] = tiles[r].open(row_of(p.x, row + r), i, n);
        dy[r] = passed[r].open(p, row + r, i, n);
        prefetch_ahead<Form::multi, P>(p, p.x, row + r, i, n);
        prefetch_ahead<Form::multi, P>(p, p.dy, row + r, i, n);
      }
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) {
        double sum = sums.first[i + j], product = sums.second[i + j];
        for (int r = 0; r < count; ++r)
          add_gradient(double(dy[r][j]), double(x[r][j] - mean[j]), sum, product);
        sums.first[i + j] = sum;
        sums.second[i + j] = product;
      }
    });
  };
  is_few<P>(p, p.x) && is_few<P>(p, p.dy) ? reduce_few<P, relu>(p, constants[0])
                                          : take_quarters(p, take);
  if (!closes(p, p.rows)) return;
  memcpy(p.first, sums.first_before, p.n * sizeof(double));
  memcpy(p.second, sums.second_before, p.n * sizeof(double));
}

}  // namespace
}  // namespace fastopt::cpu
