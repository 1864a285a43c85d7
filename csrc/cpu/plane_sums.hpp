// BatchNorm's sums over one channel at a time, in lanes.
#pragma once

#include "cpu/channel_sums.hpp"

namespace fastopt::cpu {
namespace {

// Rotates the lanes: lane l becomes lane l - turn of `out`, modulo kLanes.
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

// Two sums in lanes over the values of a piece in one quarter, tile by tile. The lanes are rotated so
// that the first value belongs to the first lane. This then holds for every tile, because the length of
// a tile is a multiple of the number of lanes.
class TwoSums {
 public:
  TwoSums(BlockSums& sums, int64_t from, bool opens) : home_(sums), turn_(int(from % kLanes)) {
    if (opens) return;
    turn_lanes(home_.first, turn_, first_);
    turn_lanes(home_.second, turn_, second_);
  }

  // Adds the next n values: add<count>(j, first, second) adds `count` of them, from the j-th on, to as
  // many lanes of each sum. The lanes are in registers while values of all of them are left.
  template <class Add>
  inline FASTOPT_INLINE void take(int64_t n, Add&& add) {
    const int64_t whole = n - n % kLanes;
    if constexpr (kUsesVectors) {
      constexpr int parts = kLanes / kWide;
      Vector<double, kWide> first[parts], second[parts];
      memcpy(first, first_, sizeof(first));
      memcpy(second, second_, sizeof(second));
      for (int64_t j = 0; j < whole; j += kLanes)
#pragma GCC unroll 8
        for (int k = 0; k < parts; ++k)
          add.template operator()<kWide>(j + k * kWide, first[k], second[k]);
      memcpy(first_, first, sizeof(first));
      memcpy(second_, second, sizeof(second));
    } else {
      for (int64_t j = 0; j < whole; j += kLanes)
#pragma omp simd
        for (int l = 0; l < kLanes; ++l) add.template operator()<1>(j + l, first_[l], second_[l]);
    }
    for (int l = 0; whole + l < n; ++l) add.template operator()<1>(whole + l, first_[l], second_[l]);
  }

  // Stores the sums; if the quarter is complete, adds them to those before.
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
void moments_single(const ChannelPiece& p) {
  VectorReader<P> x;
  BlockSums& sums = *p.sums;
  if (opens(p)) {
    x.open(p.x.data, 0, 1);
    sums.pivot[0] = double(x.template values<1>(0));
  }
  const double pivot = sums.pivot[0];
  open_block(p, kLanes);
  each_quarter<kPlaneBlock>(
      p, p.n, [&](int64_t begin, int64_t end, bool fresh, bool last) FASTOPT_INLINE {
        TwoSums lanes(sums, p.from + begin, fresh);
        each_stretch<P>(x.direct, begin, end, [&](int64_t i, int n) FASTOPT_INLINE {
          if (!x.direct) prefetch_ahead<Form::single, P>(p, p.x, 0, i, n);
          x.open(p.x.data, i, n);
          lanes.take(n, [&]<int count>(int64_t j, auto& sum, auto& square) FASTOPT_INLINE {
            add_moment(as_doubles<count>(x.template values<count>(j)), pivot, sum, square);
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
void reduce_single(const ChannelPiece& p) {
  using F = Compute<P>;
  const F mean = F(*p.constants[0]);
  VectorReader<P> x;
  GradReader<P, relu> dy;
  constexpr bool direct = x.direct && dy.direct;
  open_block(p, kLanes);
  each_quarter<kPlaneBlock>(
      p, p.n, [&](int64_t begin, int64_t end, bool fresh, bool last) FASTOPT_INLINE {
        TwoSums lanes(*p.sums, p.from + begin, fresh);
        each_stretch<P>(direct, begin, end, [&](int64_t i, int n) FASTOPT_INLINE {
          if (!direct) {
            prefetch_ahead<Form::single, P>(p, p.x, 0, i, n);
            prefetch_ahead<Form::single, P>(p, p.dy, 0, i, n);
          }
          x.open(p.x.data, i, n);
          dy.open(p, 0, i, n);
          lanes.take(n, [&]<int count>(int64_t j, auto& sum, auto& product) FASTOPT_INLINE {
            add_gradient<F>(as_doubles<count>(dy.template values<count>(j)),
                            as_doubles<count>(x.template values<count>(j) - mean), sum, product);
          });
        });
        lanes.put_back(last);
      });
  if (!closes(p, p.n)) return;
  *p.first = join_lanes<Sum>(p.sums->first_before);
  *p.second = join_lanes<Sum>(p.sums->second_before);
}

}  // namespace
}  // namespace fastopt::cpu
