// BatchNorm's passes over flat arrays that lie alike: a thread takes a few vectors.
//
// Floors on an H200 (4.3 TB/s of a copy, 132 processors at 1.98 GHz, each 128 operations on floats a
// cycle), for 10^9 values of float32: forward moves 8 GB, 1.86 ms, backward 12 GB, 2.79 ms; a residual
// or its gradient 4 GB, 0.93 ms, more. Some 6 operations a value take 0.18 ms.
#include "cuda/batch_norm_elements.hpp"
#include "cuda/flat.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kInFlight = 4;  // vectors of a thread that are read before the first is used

// A flat array as a table of `width` elements a row, which is a multiple of all channels in rows: then
// a thread that keeps its column keeps its channels. A block takes kElementThreads vectors of kInFlight
// rows at a time.
struct Table {
  int64_t elements, width, channels, inner;
  uint64_t inv_channels, inv_inner;
  int64_t stripe;       // elements of a row that a block takes
  unsigned stripes;     // blocks to a row
  int64_t turns;        // of kInFlight rows
  int64_t block_turns;  // turns of a block, the last of which may have fewer: adjacent ones
  bool even;            // a vector lies in one channel: planes of whole vectors
  bool vectors;         // all arrays can be moved as such
};

// The rules of a vector's elements: of neighboring channels, or of one channel, seldom of more.
template <class Rule, int count, bool rows>
struct Rules {
  const RuleArrays& all;
  const Table& t;
  Rule own[rows ? count : 1];
  int64_t channel = 0, left = 0;
  bool awaited = false;

  __device__ __forceinline__ Rules(const RuleArrays& arrays, const Table& table)
      : all(arrays), t(table) {}

  // Before any other; in rows, with the column of the thread's first element. The kernel before this
  // one is BatchNorm's own and writes no elements; this one comes when none that might is left. So they
  // are asked for before its turn.
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
  // In turn, that of each element of a vector.
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

// Calls visit.operator()<times, whole>(first) for each turn of a block, with the number of its thread's
// first element. The turns of a block are adjacent, and the first blocks have the last turns: what was
// summed last is what the cache still holds.
// `whole`: `times` rows at once, whose elements are there for all threads of the block and can be moved
// as vectors. Else a row at a time, which may have less.
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
  if (s.space.rows) {  // whole bytes of bits, whole channels
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
