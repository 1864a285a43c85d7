// Dropout: moves nothing but x, what is added, and the result.
//
// Lower bounds on an H200 (4.3 TB/s in a copy, 132 multiprocessors at 1.98 GHz), for 10^9 values of
// float32: 8 GB, 1.86 ms; 20 products of 32 bits for four values, 64 a cycle, 0.30 ms.
#include "cuda/dropout.hpp"

#include "core/float_mode.hpp"
#include "cuda/dropout_words.hpp"
#include "cuda/flat.hpp"
#include "cuda/walk_table.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kThreads = 256;
// Minimum of resident blocks. Without it, ptxas limits registers to fit more blocks, and spills.
template <class P>
constexpr int kMinBlocksPerSm = sizeof(P) > 4 ? 3 : 4;
constexpr int kInFlight = 2;  // spans that a thread loads before it uses the first

// Adjacent elements of a thread: a vector, and a group of words.
template <class P>
constexpr int kSpan = kPerVector<P> > 4 ? kPerVector<P> : 4;

// ---- elements ----

// Adds the bias of each column, computed in F.
template <bool plain, class B, int count, class F>
__device__ __forceinline__ void add_bias(const Task& t, int64_t i, F (&x)[count]) {
  const Source& bias = t.call.bias;
  int64_t column = divide(i, t.call.columns, t.inv_columns).remainder;
  B own[count];
  if constexpr (plain) {
    load(static_cast<const B*>(bias.data) + column, own);
  } else {
#pragma unroll
    for (int k = 0; k < count; ++k) {
      own[k] = element<B>(bias, column);
      if (++column == t.call.columns) column = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < count; ++k) x[k] = x[k] + F(widen(own[k]));
}

// A thread's span in arrays of `size` elements: its first element, and whether it is complete and can
// be moved as vectors.
struct VectorSpan {
  int64_t i, size;
  bool whole;
};

// Reads the span of a flat array; strided arrays are read one element at a time.
template <int count, class P>
__device__ __forceinline__ void read(const Source& from, const VectorSpan& at, P (&to)[count]) {
  if constexpr (count == 1)
    to[0] = element<P>(from, at.i);
  else
    load_part(from.data, at.i, at.size, at.whole, to);
}

template <int count, class P>
__device__ __forceinline__ void write(const Target& to, const VectorSpan& at, const P (&from)[count]) {
  if constexpr (count == 1)
    *reinterpret_cast<P*>(static_cast<char*>(to.data) +
                          (to.walk ? offset_of(*to.walk, at.i) : at.i * int64_t(sizeof(P)))) = from[0];
  else
    store_part(to.data, at.i, at.size, at.whole, from);
}

template <bool plain, class P, int count, class Keep>
__device__ __forceinline__ void drop(const Task& t, const Dropout<Compute<P>>& rule,
                                     const VectorSpan& at, const Keep& keep, const P (&x)[count],
                                     const P (&residual)[count], bool adds) {
  using F = Compute<P>;
  const DropoutCall& call = t.call;
  F value[count];
#pragma unroll
  for (int k = 0; k < count; ++k) value[k] = widen(x[k]);
  if (call.bias.data) {
    if (call.bias_dtype == DType::float32)
      add_bias<plain, float>(t, at.i, value);
    else
      add_bias<plain, P>(t, at.i, value);
  }
#pragma unroll
  for (int k = 0; k < count; ++k) value[k] = rule(value[k], keep.keeps(k));
  if (adds) {
#pragma unroll
    for (int k = 0; k < count; ++k) value[k] = widen(residual[k]) + value[k];
  }
  P out[count];
#pragma unroll
  for (int k = 0; k < count; ++k) out[k] = narrow<P>(value[k]);
  write(call.out, at, out);
}

// A plain task is the common case in training: spans of vectors that begin groups of words, and no
// bias or one that can be read in vectors. A thread loads all its spans at once, except at the end of
// the arrays, and draws random words while the loads are in flight: for 16-bit types, drawing takes
// two thirds of the time of the memory traffic.
template <class P, int count, bool plain>
__global__ void __launch_bounds__(kThreads, kMinBlocksPerSm<P>)
    drop_all(const FASTOPT_GRID_CONSTANT Task t, const Dropout<Compute<P>> rule) {
  grid_dependency_wait();
  constexpr int64_t apart = int64_t(kThreads) * count;
  const DropoutCall& call = t.call;
  const bool adds = call.residual.data;
  const int64_t first = int64_t(blockIdx.x) * kInFlight * apart + threadIdx.x * count;
  const int64_t last = first + (kInFlight - 1) * apart;
  if (plain && last + count <= call.size) {
    P x[kInFlight][count], residual[kInFlight][count];
#pragma unroll
    for (int r = 0; r < kInFlight; ++r) {
      const VectorSpan at{first + r * apart, call.size, true};
      read(call.x, at, x[r]);
      if (adds) read(call.residual, at, residual[r]);
    }
    Words<count> words[kInFlight];
#pragma unroll
    for (int r = 0; r < kInFlight; ++r) words[r] = words_from<count>(t, first + r * apart);
#pragma unroll
    for (int r = 0; r < kInFlight; ++r)
      drop<plain>(t, rule, {first + r * apart, call.size, true}, words[r], x[r], residual[r], adds);
    return;
  }
#pragma unroll 1
  for (int64_t i = first; i <= last && i < call.size; i += apart) {
    const VectorSpan at{i, call.size, t.vectors && i + count <= call.size};
    P x[count], residual[count];
    read(call.x, at, x);
    if (adds) read(call.residual, at, residual);
    drop<plain>(t, rule, at, kept_from<plain, count>(t, i), x, residual, adds);
  }
}

// ---- on the host ----

Task task_of(const DropoutCall& call, uint64_t threshold) {
  const DropoutMask& mask = call.mask;
  Task t{.call = call,
         .threshold = threshold,
         .key = {},
         .inv_columns = reciprocal_of(call.columns),
         .inv_channels = reciprocal_of(mask.channels),
         .inv_repeats = reciprocal_of(mask.repeats),
         .inv_inner = reciprocal_of(mask.inner),
         .random = threshold != kDropNone && threshold != kDropAll,
         .in_groups = mask.channels == 0 && mask.start % 4 == 0,
         .vectors = aligned(call.x.data) && aligned(call.residual.data) && aligned(call.out.data)};
  philox_keys(mask.seed, t.key);
  return t;
}

bool is_plain(const Task& t, int count) {
  const Source& bias = t.call.bias;
  const bool as_vectors = !bias.walk && t.call.columns % count == 0 && aligned(bias.data);
  return t.random && t.in_groups && t.vectors && (!bias.data || as_vectors);
}

template <class P, int count, bool plain>
void queue(const Place& place, const Task& t, const DropoutConstants& constants) {
  launch(place, drop_all<P, count, plain>, ceil_div(t.call.size, int64_t(kInFlight) * kThreads * count),
         kThreads, t, Dropout<Compute<P>>(constants));
}

}  // namespace

void dropout(const DropoutCall& call) {
  const IeeeMode mode;  // for the constants
  const DeviceGuard current(call.place);
  const DropoutConstants constants(call.mask.p, call.options);
  Task t = task_of(call, constants.threshold);
  WalkTable walks;
  for (const Walk** walk : {&t.call.x.walk, &t.call.residual.walk, &t.call.bias.walk, &t.call.out.walk})
    walks.add(*walk);
  const bool flat = !t.call.x.walk && !t.call.residual.walk && !t.call.out.walk;
  const DeviceBuffer buffer(call.place, walks.count() * int64_t(sizeof(Walk)), Lifetime::call);
  walks.upload(call.place, reinterpret_cast<const Walk*>(buffer.data()));

  if (!flat) t.in_groups = false;
  with_dtype(call.dtype, [&]<class P> {
    constexpr int count = kSpan<P>;
    const auto how = !flat                ? queue<P, 1, false>
                     : is_plain(t, count) ? queue<P, count, true>
                                          : queue<P, count, false>;
    how(call.place, t, constants);
  });
}

}  // namespace fastopt::cuda
