// The passes over the elements. Where all arrays are flat and alike, a thread takes a few vectors; else
// it takes an element, wherever that lies.
#include "cuda/batch_norm_passes.hpp"
#include "cuda/flat.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kInFlight = 4;  // vectors of a thread that are read before the first is used

struct Forward {
  Channels s;
  ChannelArray x, residual, y;
  uint8_t* kept;
  bool relu;
};

struct Backward {
  Channels s;
  ChannelArray x, dy, dx, dresidual;  // without x: the statistics are constants
  const uint8_t* kept;
};

// ---- the formulas, on an element ----

template <class P>
struct Normalized {
  P y;
  bool on;
};

template <class P>
__device__ __forceinline__ Normalized<P> normalized(const Normalize<Compute<P>>& rule, P x, bool adds,
                                                    P residual, bool relu) {
  using F = Compute<P>;
  F value = rule(widen(x));
  if (adds) value = value + widen(residual);
  const bool on = value > kReluFloor<P>;
  if (relu) value = value <= kReluFloor<P> ? F(0) : value;
  return {narrow<P>(value), on};
}

template <class P>
struct Gradients {
  P dx, dresidual;
};

template <class P>
__device__ __forceinline__ Gradients<P> gradients(const NormalizeBackward<Compute<P>>& rule,
                                                  bool with_x, P x, P dy, bool on) {
  using F = Compute<P>;
  const F passed = on ? widen(dy) : F(0);
  return {narrow<P>(with_x ? rule(widen(x), passed) : passed * rule.scale), narrow<P>(passed)};
}

// ---- flat arrays ----

// A flat array as a table of `width` elements a row, which is a multiple of all channels in rows: then
// a thread that keeps its column keeps its channels. Blocks take kThreads vectors of kInFlight rows at
// a time.
struct Table {
  int64_t elements, width;
  unsigned stripes;  // blocks to a row
  int64_t turns;     // of kInFlight rows
  bool even;         // a vector lies in one channel: planes of whole vectors
};

// Bits of ReLU are numbered as elements are. Eight of them make a byte, of one thread or of
// neighbouring ones, which all call this.
template <int count>
__device__ __forceinline__ void put_bits(uint8_t* kept, int64_t i, bool there, unsigned bits) {
#pragma unroll
  for (int n = count; n < 8; n *= 2)
    bits |= __shfl_down_sync(0xffffffffu, bits, unsigned(n / count)) << n;
  if (there && i % 8 == 0) kept[i / 8] = uint8_t(bits);
}

// The bit of element i and those that follow it in its byte; without ReLU all pass.
__device__ __forceinline__ unsigned bits_from(const uint8_t* kept, int64_t i) {
  return kept ? kept[i / 8] >> (i % 8) : 0xffu;
}

// The rules of a vector's elements: of neighbouring channels, or of one channel, seldom of more.
template <class Rule, class F, int count, bool rows>
struct Rules {
  const RuleArrays<F>& all;
  const Channels& s;
  const bool even;
  Rule own[rows ? count : 1];
  int64_t channel = 0, left = 0;

  __device__ __forceinline__ Rules(const RuleArrays<F>& arrays, const Channels& channels, bool is_even)
      : all(arrays), s(channels), even(is_even) {}

  __device__ __forceinline__ void at_column(int64_t column) {
    int64_t c = divide(column, s.space.channels, s.by_channels).rest;
    if (s.space.channels % count == 0) return all.get(c, own);
#pragma unroll
    for (int k = 0; k < count; ++k) {
      own[k] = all.template get<Rule>(c);
      if (++c == s.space.channels) c = 0;
    }
  }
  __device__ __forceinline__ void at_element(int64_t i) {
    const Divided plane = divide(i, s.space.inner, s.by_inner);
    channel = divide(plane.quotient, s.space.channels, s.by_channels).rest;
    left = s.space.inner - plane.rest;
    own[0] = all.template get<Rule>(channel);
  }
  // In turn, that of each element of a vector.
  __device__ __forceinline__ const Rule& next(int k) {
    if constexpr (rows) return own[k];
    if (!even && k > 0 && --left == 0) {
      left = s.space.inner;
      if (++channel == s.space.channels) channel = 0;
      own[0] = all.template get<Rule>(channel);
    }
    return own[0];
  }
};

// Calls visit(first) for each turn of a block, with the number of its thread's first element, from the
// last turn to the first: what was summed last is what the cache still holds.
template <class Visit>
__device__ __forceinline__ void each_turn(const Table& t, int64_t column, Visit&& visit) {
  const int64_t step = gridDim.x / t.stripes;
  for (int64_t turn = blockIdx.x / t.stripes; turn < t.turns; turn += step)
    visit((t.turns - 1 - turn) * kInFlight * t.width + column);
}

template <class P, bool rows>
__global__ void __launch_bounds__(kThreads)
    normalize_flat(const FASTOPT_WHOLE_ARGUMENT Forward call, const Table t,
                   const RuleArrays<Compute<P>> arrays) {
  using F = Compute<P>;
  constexpr int count = kPerVector<P>;
  const int64_t column = (int64_t(blockIdx.x % t.stripes) * kThreads + threadIdx.x) * count;
  const bool inside = column < t.width, adds = call.residual.data;
  Rules<Normalize<F>, F, count, rows> rules(arrays, call.s, t.even);
  if (rows && inside) rules.at_column(column);
  each_turn(t, column, [&](int64_t first) {
    P x[kInFlight][count], residual[kInFlight][count];
#pragma unroll
    for (int r = 0; r < kInFlight; ++r) {
      const int64_t i = first + r * t.width;
      if (!inside || i >= t.elements) continue;
      load_part(call.x.data, i, t.elements, x[r]);
      if (adds) load_part(call.residual.data, i, t.elements, residual[r]);
    }
#pragma unroll
    for (int r = 0; r < kInFlight; ++r) {
      const int64_t i = first + r * t.width;
      const bool there = inside && i < t.elements;
      unsigned bits = 0;
      if (there) {
        if (!rows) rules.at_element(i);
        P y[count];
#pragma unroll
        for (int k = 0; k < count; ++k) {
          const Normalized<P> own = normalized(rules.next(k), x[r][k], adds, residual[r][k], call.relu);
          y[k] = own.y;
          bits |= unsigned(own.on) << k;
        }
        store_part(call.y.data, i, t.elements, y);
      }
      if (call.kept) put_bits<count>(call.kept, i, there, bits);
    }
  });
}

template <class P, bool rows>
__global__ void __launch_bounds__(kThreads)
    gradient_flat(const FASTOPT_WHOLE_ARGUMENT Backward call, const Table t,
                  const RuleArrays<Compute<P>> arrays) {
  using F = Compute<P>;
  constexpr int count = kPerVector<P>;
  const int64_t column = (int64_t(blockIdx.x % t.stripes) * kThreads + threadIdx.x) * count;
  if (column >= t.width) return;
  const bool with_x = call.x.data;
  Rules<NormalizeBackward<F>, F, count, rows> rules(arrays, call.s, t.even);
  if (rows) rules.at_column(column);
  each_turn(t, column, [&](int64_t first) {
    P x[kInFlight][count], dy[kInFlight][count];
    unsigned on[kInFlight];
#pragma unroll
    for (int r = 0; r < kInFlight; ++r) {
      const int64_t i = first + r * t.width;
      if (i >= t.elements) continue;
      load_part(call.dy.data, i, t.elements, dy[r]);
      if (with_x) load_part(call.x.data, i, t.elements, x[r]);
      on[r] = bits_from(call.kept, i);
    }
#pragma unroll
    for (int r = 0; r < kInFlight; ++r) {
      const int64_t i = first + r * t.width;
      if (i >= t.elements) continue;
      if (!rows) rules.at_element(i);
      P dx[count], dresidual[count];
#pragma unroll
      for (int k = 0; k < count; ++k) {
        const Gradients<P> own = gradients(rules.next(k), with_x, x[r][k], dy[r][k], on[r] >> k & 1);
        dx[k] = own.dx;
        dresidual[k] = own.dresidual;
      }
      store_part(call.dx.data, i, t.elements, dx);
      if (call.dresidual.data) store_part(call.dresidual.data, i, t.elements, dresidual);
    }
  });
}

// ---- any arrays ----

template <class P>
__device__ __forceinline__ P* place(const Channels& s, const ChannelArray& a, const Spot& at) {
  return reinterpret_cast<P*>(a.data + offset_of(s, a, at, sizeof(P)));
}

template <class P>
__global__ void __launch_bounds__(kThreads)
    normalize_each(const FASTOPT_WHOLE_ARGUMENT Forward call, const RuleArrays<Compute<P>> arrays) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const bool there = i < call.s.elements;
  unsigned bits = 0;
  if (there) {
    const Spot at = spot_of(call.s, i);
    const auto rule = arrays.template get<Normalize<Compute<P>>>(at.channel);
    const bool adds = call.residual.data;
    const Normalized<P> own = normalized(rule, element<P>(call.s, call.x, at), adds,
                                         adds ? element<P>(call.s, call.residual, at) : P{}, call.relu);
    *place<P>(call.s, call.y, at) = own.y;
    bits = own.on;
  }
  if (call.kept) put_bits<1>(call.kept, i, there, bits);
}

template <class P>
__global__ void __launch_bounds__(kThreads)
    gradient_each(const FASTOPT_WHOLE_ARGUMENT Backward call, const RuleArrays<Compute<P>> arrays) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= call.s.elements) return;
  const Spot at = spot_of(call.s, i);
  const auto rule = arrays.template get<NormalizeBackward<Compute<P>>>(at.channel);
  const bool with_x = call.x.data;
  const Gradients<P> own = gradients(rule, with_x, with_x ? element<P>(call.s, call.x, at) : P{},
                                     element<P>(call.s, call.dy, at), bits_from(call.kept, i) & 1);
  *place<P>(call.s, call.dx, at) = own.dx;
  if (call.dresidual.data) *place<P>(call.s, call.dresidual, at) = own.dresidual;
}

// ---- on the host ----

int64_t common_divisor(int64_t a, int64_t b) { return b == 0 ? a : common_divisor(b, a % b); }

Table table_of(const Channels& s, int count) {
  const int64_t step = kThreads * int64_t(count);
  int64_t width = step;
  if (s.space.rows) {  // whole bytes of bits, whole channels
    width = s.space.channels * (8 / common_divisor(8, s.space.channels));
    if (width < step) width *= step / width;
  }
  return {s.elements, width, unsigned(over(width, step)), over(over(s.elements, width), kInFlight),
          s.space.inner % count == 0};
}

int64_t blocks_for(const Place& place, const Table& t) {
  const int64_t at_once = over(blocks_at_once(place), t.stripes);
  return (t.turns < at_once ? t.turns : at_once) * t.stripes;
}

}  // namespace

template <class P>
void queue_normalize(const BatchNormForward& call, const Channels& s,
                     const RuleArrays<Compute<P>>& rules) {
  const Forward forward{s, call.x, call.residual, call.y, call.kept, call.relu};
  const auto flat = [&](const ChannelArray& a) { return !a.data || s.flat(a, sizeof(P)); };
  if (!flat(call.x) || !flat(call.residual) || !flat(call.y))
    return launch(call.place, normalize_each<P>, over(s.elements, kThreads), kThreads, forward, rules);
  const Table t = table_of(s, kPerVector<P>);
  launch(call.place, s.space.rows ? normalize_flat<P, true> : normalize_flat<P, false>,
         blocks_for(call.place, t), kThreads, forward, t, rules);
}

template <class P>
void queue_gradient(const BatchNormBackward& call, const Channels& s,
                    const RuleArrays<Compute<P>>& rules) {
  Backward backward{s, call.x, call.dy, call.dx, call.dresidual, call.kept};
  if (call.count == 0.0) backward.x.data = nullptr;
  const auto flat = [&](const ChannelArray& a) { return !a.data || s.flat(a, sizeof(P)); };
  if (!flat(backward.x) || !flat(call.dy) || !flat(call.dx) || !flat(call.dresidual))
    return launch(call.place, gradient_each<P>, over(s.elements, kThreads), kThreads, backward, rules);
  const Table t = table_of(s, kPerVector<P>);
  launch(call.place, s.space.rows ? gradient_flat<P, true> : gradient_flat<P, false>,
         blocks_for(call.place, t), kThreads, backward, t, rules);
}

#define FASTOPT_PASSES(P)                                                    \
  template void queue_normalize<P>(const BatchNormForward&, const Channels&, \
                                   const RuleArrays<Compute<P>>&);           \
  template void queue_gradient<P>(const BatchNormBackward&, const Channels&, \
                                  const RuleArrays<Compute<P>>&);
FASTOPT_PASSES(Half)
FASTOPT_PASSES(BFloat16)
FASTOPT_PASSES(float)
FASTOPT_PASSES(double)

}  // namespace fastopt::cuda
