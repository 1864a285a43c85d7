// The sums of BatchNorm over channels: moments, and those of the backward pass. In an unnamed
// namespace, as tile.hpp says.
#pragma once

#include "cpu/channel_few.hpp"

namespace fastopt::cpu {
namespace {

// ---- what a value adds to either sum, a double or a vector of them ----

template <class D>
inline __attribute__((always_inline)) void add_moment(const D& x, const D& pivot, D& sum, D& square) {
  const D d = x - pivot;
  sum += d;
  square += d * d;
}

template <class D>
inline __attribute__((always_inline)) void add_gradient(const D& dy, const D& x, D& sum, D& product) {
  sum += dy;
  product += dy * x;
}

// ---- a block's quarters ----

inline bool opens(const ChannelPiece& p) { return p.from == 0; }
inline bool closes(const ChannelPiece& p, int64_t values) { return p.from + values == p.size; }

inline void clear(double* sums, int64_t n) { memset(sums, 0, n * sizeof(double)); }

// Of a block that begins, for `n` lanes or channels.
inline void open_block(const ChannelPiece& p, int64_t n) {
  if (!opens(p)) return;
  clear(p.sums->first_before, n);
  clear(p.sums->second_before, n);
}

// Adds a quarter that has come to its end to those before.
inline __attribute__((always_inline)) void close_quarter(BlockSums& sums, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    sums.first_before[i] += sums.first[i];
    sums.second_before[i] += sums.second[i];
  }
}

// What a piece of `values` has of each quarter of a block of `block`: visit(begin, end, opens, closes),
// which says whether the quarter begins and ends there.
template <int block, class Visit>
inline __attribute__((always_inline)) void each_quarter(const ChannelPiece& p, int64_t values,
                                                        Visit&& visit) {
  constexpr int64_t quarter = block / kQuarters;
  for (int64_t begin = 0; begin < values;) {
    const int64_t done = (p.from + begin) % quarter, left = values - begin;
    const int64_t end = begin + (quarter - done < left ? quarter - done : left);
    visit(begin, end, done == 0, (p.from + end) % quarter == 0 || closes(p, end));
    begin = end;
  }
}

// ---- one channel ----

// Lane l of `lanes` becomes lane l - turn of `out`, from 0 to kLanes - 1 and on from there.
inline void turn_lanes(const double* lanes, int turn, double* out) {
  if (turn == 0) {
    memcpy(out, lanes, kLanes * sizeof(double));
    return;
  }
  double twice[2 * kLanes];
  memcpy(twice, lanes, kLanes * sizeof(double));
  memcpy(twice + kLanes, lanes, kLanes * sizeof(double));
  memcpy(out, twice + turn, kLanes * sizeof(double));
}

// Two sums in lanes over the values of a piece in one quarter, tile by tile. The lanes are turned so
// that the first value meets the first of them; so does every tile's, for a tile's length is a multiple
// of theirs.
class TwoSums {
 public:
  TwoSums(BlockSums& sums, int64_t from, bool opens) : home_(sums), turn_(int(from % kLanes)) {
    if (opens) return;
    turn_lanes(home_.first, turn_, first_);
    turn_lanes(home_.second, turn_, second_);
  }

  // add(j, first, second) adds value j of the next n to one lane of each.
  template <class Add>
  inline __attribute__((always_inline)) void take(int n, Add&& add) {
    int j = 0;
    for (; j + kLanes <= n; j += kLanes)
#pragma omp simd
      for (int l = 0; l < kLanes; ++l) add(j + l, first_[l], second_[l]);
    for (int l = 0; j < n; ++j, ++l) add(j, first_[l], second_[l]);
  }

  // Leaves them, or, of a quarter that has come to its end, adds them to those before.
  void put_back(bool closes) const {
    const int back = (kLanes - turn_) % kLanes;
    turn_lanes(first_, back, home_.first);
    turn_lanes(second_, back, home_.second);
    if (closes) close_quarter(home_, kLanes);
  }

 private:
  static_assert(kTile % kLanes == 0 && kPlaneBlock / kQuarters % kLanes == 0);
  BlockSums& home_;
  int turn_;
  double first_[kLanes] = {}, second_[kLanes] = {};
};

template <class P>
void moments_of_one(const ChannelPiece& p) {
  using F = Compute<P>;
  Tile<P> tile;
  BlockSums& sums = *p.sums;
  if (opens(p)) sums.pivot[0] = double(*tile.open(p.x.data, 0, 1));
  const double pivot = sums.pivot[0];
  const bool direct = in_place<P>(p.x);
  open_block(p, kLanes);
  each_quarter<kPlaneBlock>(
      p, p.n, [&](int64_t begin, int64_t end, bool fresh, bool last) __attribute__((always_inline)) {
        TwoSums lanes(sums, p.from + begin, fresh);
        each_stretch(direct, begin, end, [&](int64_t i, int n) __attribute__((always_inline)) {
          if (!direct) fetch_ahead<one, P>(p, p.x, 0, i, n);
          const F* x = tile.open(p.x.data, i, n);
          lanes.take(n, [=](int j, double& sum, double& square) __attribute__((always_inline)) {
            add_moment(double(x[j]), pivot, sum, square);
          });
        });
        lanes.put_back(last);
      });
  if (!closes(p, p.n)) return;
  const Moments m = moments_about(pivot, join_lanes<Sum>(sums.first_before),
                                  join_lanes<Sum>(sums.second_before), double(p.size));
  *p.first = m.mean;
  *p.second = m.m2;
}

template <class P, bool relu>
void reduce_one(const ChannelPiece& p) {
  using F = Compute<P>;
  const F mean = F(*p.constants[0]);
  Tile<P> tile;
  Passed<P, relu> passed;
  const bool direct = !relu && in_place<P>(p.x) && in_place<P>(p.dy);
  open_block(p, kLanes);
  each_quarter<kPlaneBlock>(
      p, p.n, [&](int64_t begin, int64_t end, bool fresh, bool last) __attribute__((always_inline)) {
        TwoSums lanes(*p.sums, p.from + begin, fresh);
        each_stretch(direct, begin, end, [&](int64_t i, int n) __attribute__((always_inline)) {
          if (!direct) {
            fetch_ahead<one, P>(p, p.x, 0, i, n);
            fetch_ahead<one, P>(p, p.dy, 0, i, n);
          }
          const F *x = tile.open(p.x.data, i, n), *dy = passed.open(p, 0, i, n);
          lanes.take(n, [=](int j, double& sum, double& product) __attribute__((always_inline)) {
            add_gradient(double(dy[j]), double(x[j] - mean), sum, product);
          });
        });
        lanes.put_back(last);
      });
  if (!closes(p, p.n)) return;
  *p.first = join_lanes<Sum>(p.sums->first_before);
  *p.second = join_lanes<Sum>(p.sums->second_before);
}

// ---- neighbouring channels ----

// Rows [row, end), four at a time, so that the sums are loaded and stored a quarter as often:
// add<count>(row).
template <class Add>
inline __attribute__((always_inline)) void each_four_rows(int64_t row, int64_t end, Add&& add) {
  for (; row + 4 <= end; row += 4) add.template operator()<4>(row);
  for (; row < end; ++row) add.template operator()<1>(row);
}

// The rows of a piece, quarter by quarter of its block, by the same add.
template <class Add>
inline __attribute__((always_inline)) void take_quarters(const ChannelPiece& p, Add&& add) {
  BlockSums& sums = *p.sums;
  open_block(p, p.n);
  each_quarter<kRowBlock>(
      p, p.rows, [&](int64_t begin, int64_t end, bool fresh, bool last) __attribute__((always_inline)) {
        if (fresh) {
          clear(sums.first, p.n);
          clear(sums.second, p.n);
        }
        each_four_rows(begin, end, add);
        if (last) close_quarter(sums, p.n);
      });
}

// Whole blocks of few channels.
template <class P>
void moments_of_few(const ChannelPiece& p) {
  FewRows<P> rows(p, p.x);
  const auto add = [&]<int wide>(Vector<double, wide>& sum, Vector<double, wide>& square, int c,
                                 const Compute<P>* x) __attribute__((always_inline)) {
    add_moment(as_doubles<wide>(vector_at<wide>(x)), vector_at<wide>(p.sums->pivot + c), sum, square);
  };
  take_few(p, add, rows);
}

// Each channel from its first row to its last.
template <class P>
void moments_of_many(const ChannelPiece& p) {
  using F = Compute<P>;
  BlockSums& sums = *p.sums;
  Tile<P> tiles[4];
  if (opens(p))
    each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
      const F* x = tiles[0].open(p.x.data, i, n);
      for (int j = 0; j < n; ++j) sums.pivot[i + j] = double(x[j]);
    });
  const auto take = [&]<int count>(int64_t row) __attribute__((always_inline)) {
    each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
      const F* x[count];
      for (int r = 0; r < count; ++r) {
        x[r] = tiles[r].open(row_of(p.x, row + r), i, n);
        fetch_ahead<many, P>(p, p.x, row + r, i, n);
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
void reduce_few(const ChannelPiece& p, const Compute<P>* mean) {
  using F = Compute<P>;
  FewRows<P> x_rows(p, p.x);
  FewRows<P, relu> dy_rows(p, p.dy);
  const auto add = [&]<int wide>(Vector<double, wide>& sum, Vector<double, wide>& product, int c,
                                 const F* x, const F* dy) __attribute__((always_inline)) {
    add_gradient(as_doubles<wide>(vector_at<wide>(dy)),
                 as_doubles<wide>(vector_at<wide>(x) - vector_at<wide>(mean + c)), sum, product);
  };
  take_few(p, add, x_rows, dy_rows);
}

template <class P, bool relu>
void reduce_many(const ChannelPiece& p) {
  using F = Compute<P>;
  const ChannelConstants<many, F, 1> constants(p);
  BlockSums& sums = *p.sums;
  Tile<P> tiles[4];
  Passed<P, relu> passed[4];
  const auto take = [&]<int count>(int64_t row) __attribute__((always_inline)) {
    each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
      const F *x[count], *dy[count], *mean = constants[0] + i;
      for (int r = 0; r < count; ++r) {
        x[r] = tiles[r].open(row_of(p.x, row + r), i, n);
        dy[r] = passed[r].open(p, row + r, i, n);
        fetch_ahead<many, P>(p, p.x, row + r, i, n);
        fetch_ahead<many, P>(p, p.dy, row + r, i, n);
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

template <Form form, class P>
void reduce(const ChannelPiece& p) {
  if constexpr (form == one)
    p.kept.data ? reduce_one<P, true>(p) : reduce_one<P, false>(p);
  else
    p.kept.data ? reduce_many<P, true>(p) : reduce_many<P, false>(p);
}

}  // namespace
}  // namespace fastopt::cpu
