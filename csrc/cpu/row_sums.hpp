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

// Calls add<count>(j, first, second) for the two sums of channels [i, i + n): of `count` of them, from
// the j-th on.
template <class Add>
inline FASTOPT_INLINE void update_sums(BlockSums& sums, int64_t i, int n, Add&& add) {
  const auto update = [&]<int count>(int j) FASTOPT_INLINE {
    auto first = vector_at<count>(sums.first + i + j), second = vector_at<count>(sums.second + i + j);
    add.template operator()<count>(j, first, second);
    store_vector(sums.first + i + j, first);
    store_vector(sums.second + i + j, second);
  };
  int j = 0;
  if constexpr (kUsesVectors)
    for (; j + kWide <= n; j += kWide) update.template operator()<kWide>(j);
#pragma GCC ivdep
  for (; j < n; ++j) update.template operator()<1>(j);
}

// Each channel is summed from its first row to its last.
template <class P>
void moments_multi(const ChannelPiece& p) {
  BlockSums& sums = *p.sums;
  VectorReader<P> x[4];
  if (opens(p))
    each_tile<P>(0, p.n, [&](int64_t i, int n) FASTOPT_INLINE {
      x[0].open(p.x.data, i, n);
      for (int j = 0; j < n; ++j) sums.pivot[i + j] = double(x[0].template values<1>(j));
    });
  const auto take = [&]<int rows>(int64_t row) FASTOPT_INLINE {
    each_tile<P>(0, p.n, [&](int64_t i, int n) FASTOPT_INLINE {
      for (int r = 0; r < rows; ++r) {
        x[r].open(row_of(p.x, row + r), i, n);
        prefetch_ahead<Form::multi, P>(p, p.x, row + r, i, n);
      }
      update_sums(sums, i, n, [&]<int count>(int j, auto& sum, auto& square) FASTOPT_INLINE {
        const auto pivot = vector_at<count>(sums.pivot + i + j);
        for (int r = 0; r < rows; ++r)
          add_moment(as_doubles<count>(x[r].template values<count>(j)), pivot, sum, square);
      });
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
  VectorReader<P> x[4];
  GradReader<P, relu> dy[4];
  const auto take = [&]<int rows>(int64_t row) FASTOPT_INLINE {
    each_tile<P>(0, p.n, [&](int64_t i, int n) FASTOPT_INLINE {
      for (int r = 0; r < rows; ++r) {
        x[r].open(row_of(p.x, row + r), i, n);
        dy[r].open(p, row + r, i, n);
        prefetch_ahead<Form::multi, P>(p, p.x, row + r, i, n);
        prefetch_ahead<Form::multi, P>(p, p.dy, row + r, i, n);
      }
      update_sums(sums, i, n, [&]<int count>(int j, auto& sum, auto& product) FASTOPT_INLINE {
        const auto mean = vector_at<count>(constants[0] + i + j);
        for (int r = 0; r < rows; ++r)
          add_gradient<F>(as_doubles<count>(dy[r].template values<count>(j)),
                          as_doubles<count>(x[r].template values<count>(j) - mean), sum, product);
      });
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
