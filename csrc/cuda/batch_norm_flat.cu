// BatchNorm's element-wise passes over flat arrays with the same layout: each thread processes a few
// vectors.
//
// Lower bounds on an H200 (4.3 TB/s in a copy, 132 multiprocessors at 1.98 GHz, each with 128 float
// operations a cycle), for 10^9 values of float32: forward moves 8 GB, 1.86 ms, backward 12 GB, 2.79
// ms; a residual or its gradient adds 4 GB, 0.93 ms. About 6 operations a value take 0.18 ms.
#include "cuda/batch_norm_elements.hpp"
#include "cuda/flat.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kInFlight = 4;  // vectors that a thread loads before it uses the first

// Views a flat array as a table with `width` elements per row. In rows layout `width` is a multiple of
// the channel count, so a thread that stays in its column stays with its channels. A block processes
// kElementThreads vectors of kInFlight rows in one iteration.
struct Table {
  int64_t elements, width, channels, inner;
  uint64_t inv_channels, inv_inner;
  int64_t stripe;       // elements of a row that a block processes
  unsigned stripes;     // blocks per row
  int64_t turns;        // iterations over kInFlight rows
  int64_t block_turns;  // iterations of a block, adjacent ones; the last block may have fewer
  bool even;            // planes of whole vectors, so that each is in one channel
  bool vectors;         // all arrays can be moved as such
};

// The rules for the elements of a vector: in rows, those of adjacent channels; otherwise that of one
// channel, rarely of several.
template <class Rule, int count, bool rows>
struct Rules {
  const RuleArrays& all;
  const Table& t;
  Rule own[rows ? count : 1];
  int64_t channel = 0, left = 0;
  bool awaited = false;

  __device__ __forceinline__ Rules(const RuleArrays& arrays, const Table& table)
      : all(arrays), t(table) {}

  // Must be called before any other member; in rows layout, with the column of the thread's first
  // element. The preceding kernel is BatchNorm's own finish kernel, which writes no elements, and it
  // started only after all earlier work, so elements may be loaded before grid_dependency_wait().
  __device__ __forceinline__ void await(int64_t column) {
    if (awaited) return;
    grid_dependency_wait();
    if (rows && column < t.width) at_column(column);
    awaited = true;
  }

  __device__ __forceinline__ void at_column(int64_t column) {
    int64_t c = divide(column, t.channels, t.inv_channels).remainder;
    if (t.channels % count == 0) return all.get(c, own);
#pragma unroll
    for (int k = 0; k < count; ++k) {
      own[k] = all.get<Rule>(c);
      if (++c == t.channels) c = 0;
    }
  }
  __device__ __forceinline__ void at_element(int64_t i) {
    const DivMod plane = divide(i, t.inner, t.inv_inner);
    channel = divide(plane.quotient, t.channels, t.inv_channels).remainder;
    left = t.inner - plane.remainder;
    own[0] = all.get<Rule>(channel);
  }
  // The rule of element k of a vector; called with k in ascending order.
  __device__ __forceinline__ const Rule& next(int k) {
    if constexpr (rows) return own[k];
    if (!t.even && k > 0 && --left == 0) {
      left = t.inner;
      if (++channel == t.channels) channel = 0;
      own[0] = all.get<Rule>(channel);
    }
    return own[0];
  }
};

// Calls visit<times, full>(first) for each iteration of the block, where `first` is the index of the
// thread's first element. The iterations of a block are adjacent, and they run backwards through the
// array, because the data summed last is still in the L2 cache. `full`: `times` rows at once, all of
// whose elements exist for all threads of the block and can be moved as vectors. Otherwise one row at
// a time, which may be incomplete.
template <class Visit>
__device__ __forceinline__ void each_turn(const Table& t, int64_t column, Visit&& visit) {
  constexpr int64_t times = kInFlight;
  const int64_t stripe = int64_t(blockIdx.x % t.stripes + 1) * t.stripe;
  const int64_t begin = int64_t(blockIdx.x / t.stripes) * t.block_turns;
  int left = int(begin + t.block_turns < t.turns ? t.block_turns : t.turns - begin);
  int64_t row = (t.turns - 1 - begin) * times * t.width;
  for (; left > 0; --left, row -= times * t.width) {
    if (t.vectors && stripe <= t.width && row + (times - 1) * t.width + stripe <= t.elements) {
      visit.template operator()<kInFlight, true>(row + column);
      continue;
    }
#pragma unroll 1
    for (int r = 0; r < times; ++r) visit.template operator()<1, false>(row + r * t.width + column);
  }
}

template <class P, bool rows>
__global__ void __launch_bounds__(kElementThreads)
    normalize_flat(const FASTOPT_GRID_CONSTANT BatchNormForward call, const Table t,
                   const RuleArrays arrays) {
  constexpr int count = kPerVector<P>;
  using F = Compute<P>;
  const int64_t column = (int64_t(blockIdx.x % t.stripes) * kElementThreads + threadIdx.x) * count;
  const bool inside = column < t.width;
  Rules<Normalize<F>, count, rows> rules(arrays, t);
  each_turn(t, column, [&]<int times, bool whole>(int64_t first) {
    P x[times][count], residual[times][count];
#pragma unroll
    for (int r = 0; r < times; ++r) {
      const int64_t i = first + r * t.width;
      if (!whole && !(inside && i < t.elements)) continue;
      load_part<count, CacheHint::streaming>(call.x.data, i, t.elements, whole, x[r]);
      if (call.residual.data)
        load_part<count, CacheHint::streaming>(call.residual.data, i, t.elements, whole, residual[r]);
    }
    rules.await(column);
#pragma unroll
    for (int r = 0; r < times; ++r) {
      const int64_t i = first + r * t.width;
      const bool there = whole || (inside && i < t.elements);
      unsigned bits = 0;
      if (there) {
        if (!rows) rules.at_element(i);
        P y[count];
        bits = normalize(call, [&](int k) { return rules.next(k); }, x[r], residual[r], y);
        store_part<count, CacheHint::streaming>(call.y.data, i, t.elements, whole, y);
      }
      if (call.relu_mask) store_mask_bits<count>(call.relu_mask, i, there, bits);
    }
  });
}

template <class P, bool rows>
__global__ void __launch_bounds__(kElementThreads)
    gradient_flat(const FASTOPT_GRID_CONSTANT BatchNormBackward call, const Table t,
                  const RuleArrays arrays) {
  constexpr int count = kPerVector<P>;
  using F = Compute<P>;
  const int64_t column = (int64_t(blockIdx.x % t.stripes) * kElementThreads + threadIdx.x) * count;
  const bool inside = column < t.width;
  Rules<NormalizeBackward<F>, count, rows> rules(arrays, t);
  each_turn(t, column, [&]<int times, bool whole>(int64_t first) {
    P x[times][count], dy[times][count];
    unsigned on[times] = {};
#pragma unroll
    for (int r = 0; r < times; ++r) {
      const int64_t i = first + r * t.width;
      if (!whole && !(inside && i < t.elements)) continue;
      load_part<count, CacheHint::streaming>(call.dy.data, i, t.elements, whole, dy[r]);
      if (call.x.data) load_part<count, CacheHint::streaming>(call.x.data, i, t.elements, whole, x[r]);
      on[r] = bits_from(call.relu_mask, i);
    }
    rules.await(column);
#pragma unroll
    for (int r = 0; r < times; ++r) {
      const int64_t i = first + r * t.width;
      if (!whole && !(inside && i < t.elements)) continue;
      if (!rows) rules.at_element(i);
      P dx[count];
      if (call.relu_mask) apply_relu_mask(on[r], dy[r]);
      differentiate(call, [&](int k) { return rules.next(k); }, x[r], dy[r], dx);
      store_part<count, CacheHint::streaming>(call.dx.data, i, t.elements, whole, dx);
      if (call.dresidual.data)
        store_part<count, CacheHint::streaming>(call.dresidual.data, i, t.elements, whole, dy[r]);
    }
  });
}

// ---- on the host ----

int64_t common_divisor(int64_t a, int64_t b) { return b == 0 ? a : common_divisor(b, a % b); }

Table table_of(const Place& place, const Channels& s, int count, bool vectors) {
  const int64_t stripe = kElementThreads * int64_t(count);
  int64_t width = stripe;
  if (s.space.rows) {  // whole bytes of mask bits, and all channels
    width = s.space.channels * (8 / common_divisor(8, s.space.channels));
    if (width < stripe) width *= stripe / width;
  }
  const int64_t stripes = ceil_div(width, stripe);
  const int64_t turns = ceil_div(ceil_div(s.elements, width), kInFlight);
  return {.elements = s.elements,
          .width = width,
          .channels = s.space.channels,
          .inner = s.space.inner,
          .inv_channels = s.inv_channels,
          .inv_inner = s.inv_inner,
          .stripe = stripe,
          .stripes = unsigned(stripes),
          .turns = turns,
          .block_turns = ceil_div(turns, ceil_div(max_grid_blocks(place), stripes)),
          .even = s.space.inner % count == 0,
          .vectors = vectors};
}

template <class P, class Call>
void queue(void (*rows)(Call, Table, RuleArrays), void (*planes)(Call, Table, RuleArrays),
           const Call& call, const Channels& s, bool vectors, const RuleArrays& rules) {
  const Table t = table_of(call.place, s, kPerVector<P>, vectors);
  const int64_t blocks = t.turns > 0 ? ceil_div(t.turns, t.block_turns) * t.stripes : 0;
  launch(call.place, s.space.rows ? rows : planes, blocks, kElementThreads, call, t, rules);
}

}  // namespace

void queue_flat(const BatchNormForward& call, const Channels& s, const RuleArrays& rules) {
  const bool vectors = all_aligned(call.x, call.residual, call.y);
  with_dtype(call.dtype, [&]<class P> {
    queue<P>(normalize_flat<P, true>, normalize_flat<P, false>, call, s, vectors, rules);
  });
}

void queue_flat(const BatchNormBackward& call, const Channels& s, const RuleArrays& rules) {
  const bool vectors = all_aligned(call.x, call.dy, call.dx, call.dresidual);
  with_dtype(call.dtype, [&]<class P> {
    queue<P>(gradient_flat<P, true>, gradient_flat<P, false>, call, s, vectors, rules);
  });
}

}  // namespace fastopt::cuda
