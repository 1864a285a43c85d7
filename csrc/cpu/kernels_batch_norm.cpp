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

// Whether a row can be taken as it lies, all at once.
template <class P>
bool in_place(const Rows& a) {
  return std::is_same_v<P, Compute<P>> && aligned(a.data, alignof(P));
}

template <class Visit>
inline __attribute__((always_inline)) void each_stretch(bool at_once, int64_t n, Visit&& visit) {
  at_once ? visit(0, int(n)) : each_tile(0, n, visit);
}

inline char* row_of(const Rows& a, int64_t row) { return a.data + row * a.step; }

// Tells the CPU what will be read soon: what a loop reads a tile at a time, or four rows at a time, it
// does not foresee. From DRAM, moments of 64 channels take 1.45 times as long without this (Zen 4).
template <Form form, class P>
inline __attribute__((always_inline)) void fetch_ahead(const Rows& a, int64_t row, int64_t i, int n) {
  const char* p = row_of(a, row + (form == many ? 16 : 0)) + i * int64_t(sizeof(P));
  if (form == one) p += 2048;
  for (int line = 0; line < n * int(sizeof(P)); line += 64) __builtin_prefetch(p + line, 0, 2);
}

// ---- reductions ----

// Neighbouring channels are summed four rows at a time, so that the sums are loaded and stored a
// quarter as often: add(row, count) with the count known to the compiler.
template <class Add>
inline __attribute__((always_inline)) void each_four_rows(int64_t rows, Add&& add) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) add(row, std::integral_constant<int, 4>());
  for (; row < rows; ++row) add(row, std::integral_constant<int, 1>());
}

// Two sums in lanes over the n values of a piece; add(j, sum, other) adds value j to one lane of each.
// The lanes are turned so that the piece's first value meets the first of them.
template <class Add>
inline __attribute__((always_inline)) void add_to_lanes(BlockSums& to, int64_t from, int n, Add&& add) {
  double sums[kLanes], others[kLanes];  // registers
  const int turn = int(from % kLanes);
  for (int l = 0; l < kLanes; ++l) {
    sums[l] = to.first[(l + turn) % kLanes];
    others[l] = to.second[(l + turn) % kLanes];
  }
  int j = 0;
  for (; j + kLanes <= n; j += kLanes)
#pragma omp simd
    for (int l = 0; l < kLanes; ++l) add(j + l, sums[l], others[l]);
  for (int l = 0; j < n; ++j, ++l) add(j, sums[l], others[l]);
  for (int l = 0; l < kLanes; ++l) {
    to.first[(l + turn) % kLanes] = sums[l];
    to.second[(l + turn) % kLanes] = others[l];
  }
}

void open_block(const ChannelPiece& p, int64_t sums) {
  if (!p.opens()) return;
  memset(p.sums->first, 0, sums * sizeof(double));
  memset(p.sums->second, 0, sums * sizeof(double));
}

template <class P>
void moments_of_one(const ChannelPiece& p) {
  using F = Compute<P>;
  Tile<P> tile;
  BlockSums& sums = *p.sums;
  open_block(p, kLanes);
  if (p.opens()) sums.pivot[0] = double(*tile.open(p.x.data, 0, 1));
  const double pivot = sums.pivot[0];
  each_stretch(in_place<P>(p.x), p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
    const F* x = tile.open(p.x.data, i, n);
    const auto add = [=](int j, double& sum, double& square) __attribute__((always_inline)) {
      const double d = double(x[j]) - pivot;
      sum += d;
      square += d * d;
    };
    add_to_lanes(sums, p.from + i, n, add);
  });
  if (!p.closes(p.n)) return;
  const Moments m =
      moments_about(pivot, join_lanes<Sum>(sums.first), join_lanes<Sum>(sums.second), double(p.size));
  *p.first = m.mean;
  *p.second = m.m2;
}

// Each channel from its first row to its last.
template <class P>
void moments_of_many(const ChannelPiece& p) {
  using F = Compute<P>;
  BlockSums& sums = *p.sums;
  Tile<P> tiles[4];
  open_block(p, p.n);
  if (p.opens())
    each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
      const F* x = tiles[0].open(p.x.data, i, n);
      for (int j = 0; j < n; ++j) sums.pivot[i + j] = double(x[j]);
    });
  each_four_rows(p.rows, [&](int64_t row, auto count) __attribute__((always_inline)) {
    each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
      const F* x[count];
      for (int r = 0; r < count; ++r) {
        x[r] = tiles[r].open(row_of(p.x, row + r), i, n);
        fetch_ahead<many, P>(p.x, row + r, i, n);
      }
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) {
        double sum = sums.first[i + j], square = sums.second[i + j];
        for (int r = 0; r < count; ++r) {
          const double d = double(x[r][j]) - sums.pivot[i + j];
          sum += d;
          square += d * d;
        }
        sums.first[i + j] = sum;
        sums.second[i + j] = square;
      }
    });
  });
  if (!p.closes(p.rows)) return;
  for (int64_t c = 0; c < p.n; ++c) {
    const Moments m = moments_about(sums.pivot[c], sums.first[c], sums.second[c], double(p.size));
    p.first[c] = m.mean;
    p.second[c] = m.m2;
  }
}

// dy where ReLU let x pass, else zero; all of dy if there was no ReLU.
template <bool relu, class F>
inline __attribute__((always_inline)) F passed(F dy, const uint8_t* on, int j) {
  return !relu || on[j] ? dy : F(0);
}

template <bool relu>
inline __attribute__((always_inline)) const uint8_t* passes(const ChannelPiece& p, int64_t row,
                                                            int64_t i, int n, Flags& flags) {
  if (relu) unpack(row_of(p.kept, row) + i / 8, n, flags);
  return flags.on;
}

template <class P, bool relu>
void reduce_one(const ChannelPiece& p) {
  using F = Compute<P>;
  const F mean = F(*p.constants[0]);
  Tile<P> tile, dy_tile;
  Flags flags;
  alignas(64) F masked[kTile];
  open_block(p, kLanes);
  const bool direct = !relu && in_place<P>(p.x) && in_place<P>(p.dy);
  each_stretch(direct, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
    const F *x = tile.open(p.x.data, i, n), *dy = dy_tile.open(p.dy.data, i, n);
    if constexpr (relu) {  // in a loop of its own, for it does not vectorise along with lanes
      const uint8_t* on = passes<relu>(p, 0, i, n, flags);
      fetch_ahead<one, P>(p.x, 0, i, n);
      fetch_ahead<one, P>(p.dy, 0, i, n);
#pragma omp simd
      for (int j = 0; j < n; ++j) masked[j] = passed<relu>(dy[j], on, j);
      dy = masked;
    }
    const auto add = [=](int j, double& sum, double& product) __attribute__((always_inline)) {
      sum += double(dy[j]);
      product += double(dy[j]) * double(x[j] - mean);
    };
    add_to_lanes(*p.sums, p.from + i, n, add);
  });
  if (!p.closes(p.n)) return;
  *p.first = join_lanes<Sum>(p.sums->first);
  *p.second = join_lanes<Sum>(p.sums->second);
}

template <class P, bool relu>
void reduce_many(const ChannelPiece& p) {
  using F = Compute<P>;
  const ChannelConstants<many, F, 1> constants(p);
  BlockSums& sums = *p.sums;
  Tile<P> tiles[4], dy_tiles[4];
  Flags flags[4];
  open_block(p, p.n);
  each_four_rows(p.rows, [&](int64_t row, auto count) __attribute__((always_inline)) {
    each_tile(0, p.n, [&](int64_t i, int n) __attribute__((always_inline)) {
      const F *x[count], *dy[count], *mean = constants[0] + i;
      const uint8_t* on[count];
      for (int r = 0; r < count; ++r) {
        x[r] = tiles[r].open(row_of(p.x, row + r), i, n);
        dy[r] = dy_tiles[r].open(row_of(p.dy, row + r), i, n);
        on[r] = passes<relu>(p, row + r, i, n, flags[r]);
        fetch_ahead<many, P>(p.x, row + r, i, n);
        fetch_ahead<many, P>(p.dy, row + r, i, n);
      }
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) {
        double sum = sums.first[i + j], product = sums.second[i + j];
        for (int r = 0; r < count; ++r) {
          const double g = double(passed<relu>(dy[r][j], on[r], j));
          sum += g;
          product += g * double(x[r][j] - mean[j]);
        }
        sums.first[i + j] = sum;
        sums.second[i + j] = product;
      }
    });
  });
  if (!p.closes(p.rows)) return;
  memcpy(p.first, sums.first, p.n * sizeof(double));
  memcpy(p.second, sums.second, p.n * sizeof(double));
}

template <Form form, class P>
void reduce(const ChannelPiece& p) {
  if constexpr (form == one)
    p.kept.data ? reduce_one<P, true>(p) : reduce_one<P, false>(p);
  else
    p.kept.data ? reduce_many<P, true>(p) : reduce_many<P, false>(p);
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
    fetch_ahead<form, P>(p.x, row, i, n);
    if (residual) fetch_ahead<form, P>(p.residual, row, i, n);
    const F* x = in.open(row_of(p.x, row), i, n);
    const F* more = residual ? addend.open(row_of(p.residual, row), i, n) : nullptr;
    F* y = out.place(row_of(p.y, row), i, p.streams);
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
    out.close(y, row_of(p.y, row), i, n, p.streams);
    if (relu && p.kept.data) pack(flags, n, row_of(p.kept, row) + i / 8);
  });
}

template <Form form, class P>
void normalize(const ChannelPiece& p) {
  if (p.residual.data)
    return p.relu ? normalize_as<form, P, true, true>(p) : normalize_as<form, P, true, false>(p);
  return p.relu ? normalize_as<form, P, false, true>(p) : normalize_as<form, P, false, false>(p);
}

template <Form form, class P, bool relu>
void gradient_as(const ChannelPiece& p) {
  using F = Compute<P>;
  const ChannelConstants<form, F, 4> constants(p);
  Tile<P> in, dy_in, out, rest;
  Flags flags;
  each_row_tile(p, [&](int64_t row, int64_t i, int n) __attribute__((always_inline)) {
    const int64_t c = channel<form>(i);
    const F *mean = constants[0] + c, *slope = constants[1] + c;
    const F *offset = constants[2] + c, *scale = constants[3] + c;
    fetch_ahead<form, P>(p.dy, row, i, n);
    if (p.x.data) fetch_ahead<form, P>(p.x, row, i, n);
    const F* dy = dy_in.open(row_of(p.dy, row), i, n);
    const uint8_t* on = passes<relu>(p, row, i, n, flags);
    F* dx = out.place(row_of(p.dx, row), i, p.streams);
    if (p.dresidual.data) {
      F* rest_dy = rest.place(row_of(p.dresidual, row), i, p.streams);
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) rest_dy[j] = passed<relu>(dy[j], on, j);
      rest.close(rest_dy, row_of(p.dresidual, row), i, n, p.streams);
    }
    if (p.x.data) {
      const F* x = in.open(row_of(p.x, row), i, n);
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) {
        const int64_t k = channel<form>(j);
        dx[j] = NormalizeBackward<F>{mean[k], slope[k], offset[k], scale[k]}(
            x[j], passed<relu>(dy[j], on, j));
      }
    } else {
#pragma GCC ivdep
      for (int j = 0; j < n; ++j) dx[j] = passed<relu>(dy[j], on, j) * scale[channel<form>(j)];
    }
    out.close(dx, row_of(p.dx, row), i, n, p.streams);
  });
}

template <Form form, class P>
void gradient(const ChannelPiece& p) {
  p.kept.data ? gradient_as<form, P, true>(p) : gradient_as<form, P, false>(p);
}

// ---- the table ----

template <class P>
constexpr void fill(BatchNormKernels& k, int dtype) {
  k.moments[one][dtype] = moments_of_one<P>;
  k.moments[many][dtype] = moments_of_many<P>;
  k.normalize[one][dtype] = normalize<one, P>;
  k.normalize[many][dtype] = normalize<many, P>;
  k.reduce[one][dtype] = reduce<one, P>;
  k.reduce[many][dtype] = reduce<many, P>;
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
