// The loops of BatchNorm, for one instruction set; see tile.hpp for what may not stand here.
#include "rules/batch_norm.hpp"

#include "cpu/bits.hpp"
#include "cpu/kernels.hpp"
#include "rules/moments.hpp"

namespace fastopt::cpu {
namespace {

// Whether a piece is of one channel or of neighbouring ones.
enum Form { one, many };

// Constants of the channels of a piece, as the loops read them.
template <Form form, class F, int count>
class ChannelConstants {
 public:
  ChannelConstants(const ChannelPiece& p) {
    for (int k = 0; k < count; ++k)
      for (int c = 0; c < (form == many ? p.n : 1); ++c) values_[k][c] = F(p.constants[k][c]);
  }
  const F* operator[](int k) const { return values_[k]; }

 private:
  alignas(64) F values_[count][form == many ? kMostChannels : 1];
};

// Where element i of a row finds its channel's constant.
template <Form form>
constexpr int64_t channel(int64_t i) {
  return form == many ? i : 0;
}

template <class Visit>
inline __attribute__((always_inline)) void each_row_tile(const ChannelPiece& p, Visit&& visit) {
  for (int64_t row = 0; row < p.rows; ++row)
    each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) { visit(row, i, n); });
}

inline char* row_of(const Rows& a, int64_t row) { return a.data + row * a.step; }

// ---- reductions ----

// One channel's values, summed in lanes about the first of them.
template <class P>
void moments_of_one(const ChannelPiece& p) {
  using F = Compute<P>;
  double sums[kLanes] = {}, squares[kLanes] = {};
  Tile<P> tile;
  const double pivot = double(*tile.open(p.x.data, 0, 1));
  each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
    const F* x = tile.open(p.x.data, i, n);
    const auto add = [&](int j, int l) __attribute__((always_inline)) {
      const double d = double(x[j]) - pivot;
      sums[l] += d;
      squares[l] += d * d;
    };
    int j = 0;
    for (; j + kLanes <= n; j += kLanes)
#pragma omp simd
      for (int l = 0; l < kLanes; ++l) add(j + l, l);
    for (int l = 0; j < n; ++j, ++l) add(j, l);
  });
  const Moments m = moments_about(pivot, join_lanes<Sum>(sums), join_lanes<Sum>(squares), double(p.n));
  *p.first = m.mean;
  *p.second = m.m2;
}

// Neighbouring channels, each summed from its first row to its last about the value in the first. Four
// rows at a time, so that the sums are loaded and stored a quarter as often.
template <class P>
void moments_of_many(const ChannelPiece& p) {
  using F = Compute<P>;
  alignas(64) double pivot[kMostChannels], sums[kMostChannels] = {}, squares[kMostChannels] = {};
  Tile<P> tiles[4];
  const auto add = [&]<int count>(int64_t row) __attribute__((always_inline)) {
    each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
      const F* x[count];
      for (int r = 0; r < count; ++r) x[r] = tiles[r].open(row_of(p.x, row + r), i, n);
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) {
        double sum = sums[i + j], square = squares[i + j];
        for (int r = 0; r < count; ++r) {
          const double d = double(x[r][j]) - pivot[i + j];
          sum += d;
          square += d * d;
        }
        sums[i + j] = sum;
        squares[i + j] = square;
      }
    });
  };
  each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
    const F* x = tiles[0].open(p.x.data, i, n);
    for (int j = 0; j < n; ++j) pivot[i + j] = double(x[j]);
  });
  int64_t row = 0;
  for (; row + 4 <= p.rows; row += 4) add.template operator()<4>(row);
  for (; row < p.rows; ++row) add.template operator()<1>(row);
  for (int64_t c = 0; c < p.n; ++c) {
    const Moments m = moments_about(pivot[c], sums[c], squares[c], double(p.rows));
    p.first[c] = m.mean;
    p.second[c] = m.m2;
  }
}

// dy where ReLU let x pass, else zero.
template <class P, class F = Compute<P>>
class Passed {
 public:
  const F* open(const ChannelPiece& p, int64_t row, int64_t i, int n) {
    F* dy = tile_.open(row_of(p.dy, row), i, n);
    if (!p.kept.data) return dy;
    unpack(row_of(p.kept, row) + i / 8, n, flags_);
#pragma omp simd
    for (int j = 0; j < n; ++j) passed_[j] = flags_.on[j] ? dy[j] : F(0);
    return passed_;
  }

 private:
  Tile<P> tile_;
  Flags flags_;
  alignas(64) F passed_[kTile];
};

template <class P>
void reduce_one(const ChannelPiece& p) {
  using F = Compute<P>;
  const F mean = F(*p.constants[0]);
  double sums[kLanes] = {}, products[kLanes] = {};
  Tile<P> tile;
  Passed<P> passed;
  each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
    const F* x = tile.open(p.x.data, i, n);
    const F* dy = passed.open(p, 0, i, n);
    const auto add = [&](int j, int l) __attribute__((always_inline)) {
      sums[l] += double(dy[j]);
      products[l] += double(dy[j]) * double(x[j] - mean);
    };
    int j = 0;
    for (; j + kLanes <= n; j += kLanes)
#pragma omp simd
      for (int l = 0; l < kLanes; ++l) add(j + l, l);
    for (int l = 0; j < n; ++j, ++l) add(j, l);
  });
  *p.first = join_lanes<Sum>(sums);
  *p.second = join_lanes<Sum>(products);
}

template <class P>
void reduce_many(const ChannelPiece& p) {
  using F = Compute<P>;
  const ChannelConstants<many, F, 1> constants(p);
  alignas(64) double sums[kMostChannels] = {}, products[kMostChannels] = {};
  Tile<P> tile;
  Passed<P> passed;
  each_row_tile(p, [&](int64_t row, int64_t i, int n) __attribute__((always_inline)) {
    const F* x = tile.open(row_of(p.x, row), i, n);
    const F* dy = passed.open(p, row, i, n);
    const F* mean = constants[0] + i;
#pragma GCC ivdep
    for (int j = 0; j < n; ++j) {
      sums[i + j] += double(dy[j]);
      products[i + j] += double(dy[j]) * double(x[j] - mean[j]);
    }
  });
  memcpy(p.first, sums, p.n * sizeof(double));
  memcpy(p.second, products, p.n * sizeof(double));
}

// ---- element by element ----

template <Form form, class P, bool residual, bool relu>
void normalize_as(const ChannelPiece& p) {
  using F = Compute<P>;
  const ChannelConstants<form, F, 3> constants(p);
  Tile<P> in, addend, out;
  Flags flags;
  each_row_tile(p, [&](int64_t row, int64_t i, int n) __attribute__((always_inline)) {
    const int64_t c = channel<form>(i);
    const F *mean = constants[0] + c, *scale = constants[1] + c, *shift = constants[2] + c;
    const F* x = in.open(row_of(p.x, row), i, n);
    const F* more = residual ? addend.open(row_of(p.residual, row), i, n) : nullptr;
    F* y = out.place(row_of(p.y, row), i);
#pragma GCC ivdep
    for (int j = 0; j < n; ++j) {
      const int64_t k = channel<form>(j);
      F value = Normalize<F>{mean[k], scale[k], shift[k]}(x[j]);
      if constexpr (residual) value += more[j];
      if constexpr (relu) {
        flags.on[j] = value > kReluFloor<P>;
        value = value <= kReluFloor<P> ? F(0) : value;
      }
      y[j] = value;
    }
    out.close(y, row_of(p.y, row), i, n);
    if (relu && p.kept.data) pack(flags, n, row_of(p.kept, row) + i / 8);
  });
}

template <Form form, class P>
void normalize(const ChannelPiece& p) {
  if (p.residual.data)
    return p.relu ? normalize_as<form, P, true, true>(p) : normalize_as<form, P, true, false>(p);
  return p.relu ? normalize_as<form, P, false, true>(p) : normalize_as<form, P, false, false>(p);
}

template <Form form, class P>
void gradient(const ChannelPiece& p) {
  using F = Compute<P>;
  const ChannelConstants<form, F, 4> constants(p);
  Tile<P> in, out, rest;
  Passed<P> passed;
  each_row_tile(p, [&](int64_t row, int64_t i, int n) __attribute__((always_inline)) {
    const int64_t c = channel<form>(i);
    const F *mean = constants[0] + c, *slope = constants[1] + c;
    const F *offset = constants[2] + c, *scale = constants[3] + c;
    const F* dy = passed.open(p, row, i, n);
    if (p.dresidual.data) rest.close(dy, row_of(p.dresidual, row), i, n);
    F* dx = out.place(row_of(p.dx, row), i);
    if (p.x.data) {
      const F* x = in.open(row_of(p.x, row), i, n);
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) {
        const int64_t k = channel<form>(j);
        dx[j] = NormalizeBackward<F>{mean[k], slope[k], offset[k], scale[k]}(x[j], dy[j]);
      }
    } else {
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) dx[j] = dy[j] * scale[channel<form>(j)];
    }
    out.close(dx, row_of(p.dx, row), i, n);
  });
}

// ---- the table ----

template <class P>
constexpr void fill(BatchNormKernels& k, int dtype) {
  k.moments[one][dtype] = moments_of_one<P>;
  k.moments[many][dtype] = moments_of_many<P>;
  k.normalize[one][dtype] = normalize<one, P>;
  k.normalize[many][dtype] = normalize<many, P>;
  k.reduce[one][dtype] = reduce_one<P>;
  k.reduce[many][dtype] = reduce_many<P>;
  k.gradient[one][dtype] = gradient<one, P>;
  k.gradient[many][dtype] = gradient<many, P>;
}

constexpr BatchNormKernels table() {
  BatchNormKernels k{};
  fill<Half>(k, 0);
  fill<BFloat16>(k, 1);
  fill<float>(k, 2);
  fill<double>(k, 3);
  return k;
}

}  // namespace

constexpr BatchNormKernels FASTOPT_TABLE(batch_norm_, FASTOPT_ISA) = table();

}  // namespace fastopt::cpu
