// BatchNorm in one kernel, where a block can hold its channels: they are read once and written once,
// and no block waits for another.
//
// Floors on an H100 (3.0 TB/s of a copy, 132 processors at 1.98 GHz), ResNet-50's last stage, 512
// channels of 1568 float32: forward moves 6.4 MB, 2.1 us, backward 9.6 MB, 3.2 us. A launch, a read of
// what is in no cache and the chain from a sum to a rule take more: some 2, 1 and 2 us.
#include <atomic>

#include "cuda/batch_norm.hpp"
#include "cuda/batch_norm_elements.hpp"
#include "cuda/batch_norm_held.hpp"
#include "cuda/flat.hpp"

namespace fastopt::cuda {
namespace {

// Where elements are moved one by one there must be many threads to ask for enough.
template <int width>
constexpr int kMostThreads = width == 1 ? 256 : 512;
template <class P, int width>  // blocks on a processor that registers are enough for
constexpr int kResident = width > 1 ? 1 : (sizeof(P) > 4 ? 3 : 4);

// ---- arrays in memory, and what is held of them ----

// Of rows, the same 32 bytes are half another block's.
template <bool rows, class P, int width>
__device__ __forceinline__ void read(const ChannelArray& from, int64_t number, P (&to)[width]) {
  load<width, rows ? Use::again : Use::last>(reinterpret_cast<const P*>(from.data) + number, to);
}
template <bool rows, class P, int width>
__device__ __forceinline__ void write(const ChannelArray& to, int64_t number, const P (&from)[width]) {
  store<width, rows ? Use::again : Use::last>(reinterpret_cast<P*>(to.data) + number, from);
}
// In shared memory.
template <class P, int width>
__device__ __forceinline__ void hold(P* to, const P (&from)[width]) {
  if constexpr (width == 1) {
    *to = from[0];
  } else {
    Moved<width, P> vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    *reinterpret_cast<Moved<width, P>*>(to) = vector;
  }
}

// ---- kernels ----

template <class P, bool rows, int width>
__global__ void __launch_bounds__(kMostThreads<width>, kResident<P, width>)
    normalize_held(const FASTOPT_WHOLE_ARGUMENT BatchNormForward call,
                   const FASTOPT_WHOLE_ARGUMENT Channels s) {
  await_turn();
  using Own = Held<P, rows, width>;
  using F = Compute<P>;
  __shared__ Normalize<F> finished[Own::channels];
  const Own own(s, int64_t(blockIdx.x) * Own::channels);
  P* const x = shared_room<P>();
  Pair* const sums = reinterpret_cast<Pair*>(x + own.room());
  P taken[kTaken][width];
  own.each([&](int k, int i) { read<rows>(call.x, own.number(i), taken[k]); },
           [&](int k, int i, bool there) {
             if (there) hold(x + Own::place(i), taken[k]);
           });
  const int64_t c = own.channel + threadIdx.x;
  ForwardInputs inputs{};  // here as they are not asked for too late, and not held too long
  if (threadIdx.x < Own::channels) inputs = inputs_of(call, c);
  __syncthreads();
  using Sums = MomentSums<P>;
  own.template sum<Sums>(
      sums, [&](int i) { return x[i]; }, [&](int i) { return typename Sums::Value{x[i]}; });
  if (threadIdx.x < Own::channels) {
    const Moments m{sums[threadIdx.x].first, sums[threadIdx.x].second};
    finished[threadIdx.x] = normalize_of<F>(finish_forward(call, c, inputs, m, double(s.count)));
  }
  __syncthreads();
  Normalize<F> rules[Own::channels];
#pragma unroll
  for (int k = 0; k < Own::channels; ++k) rules[k] = finished[k];

  own.each(
      [&](int k, int i) {
        if (call.residual.data) read<rows>(call.residual, own.number(i), taken[k]);
      },
      [&](int k, int i, bool there) {
        const int64_t number = own.number(i);
        unsigned bits = 0;
        if (there) {
          P value[width], y[width];
          load(x + Own::place(i), value);
          bits = normalize(call, [&](int j) { return rules[rows ? j : 0]; }, value, taken[k], y);
          write<rows>(call.y, number, y);
        }
        if (call.kept) put_bits<width>(call.kept, number, there, bits);
      });
}

template <class P, bool rows, int width>
__global__ void __launch_bounds__(kMostThreads<width>, kResident<P, width>)
    gradient_held(const FASTOPT_WHOLE_ARGUMENT BatchNormBackward call,
                  const FASTOPT_WHOLE_ARGUMENT Channels s) {
  await_turn();
  using Own = Held<P, rows, width>;
  using F = Compute<P>;
  __shared__ NormalizeBackward<F> finished[Own::channels];
  const Own own(s, int64_t(blockIdx.x) * Own::channels);
  P *const x = shared_room<P>(), *const dy = x + own.room();
  Pair* const sums = reinterpret_cast<Pair*>(dy + own.room());
  const int turn = int(threadIdx.x) % Own::step;
  const double mean = call.mean[own.channel + (rows ? turn : 0)];

  P x_taken[kTaken][width], dy_taken[kTaken][width];
  unsigned on[kTaken];
  own.each(
      [&](int k, int i) {
        const int64_t number = own.number(i);
        read<rows>(call.x, number, x_taken[k]);
        read<rows>(call.dy, number, dy_taken[k]);
        on[k] = bits_from(call.kept, number);
      },
      [&](int k, int i, bool there) {
        if (!there) return;
        if (call.kept) let_pass(on[k], dy_taken[k]);
        hold(x + Own::place(i), x_taken[k]);
        hold(dy + Own::place(i), dy_taken[k]);
      });
  const int64_t c = own.channel + threadIdx.x;
  BackwardInputs inputs{};
  if (threadIdx.x < Own::channels) inputs = inputs_of(call, c);
  __syncthreads();
  using Sums = GradientSums<P, false>;
  own.template sum<Sums>(
      sums, [&](int) { return mean; }, [&](int i) { return typename Sums::Value{x[i], dy[i], true}; });
  if (threadIdx.x < Own::channels) {
    const ChannelSums own_sums{sums[threadIdx.x].first, sums[threadIdx.x].second};
    finished[threadIdx.x] = gradient_of<F>(call, inputs, finish_backward<F>(call, c, inputs, own_sums));
  }
  __syncthreads();
  NormalizeBackward<F> rules[Own::channels];
#pragma unroll
  for (int k = 0; k < Own::channels; ++k) rules[k] = finished[k];

  own.each([](int, int) {},
           [&](int, int i, bool there) {
             if (!there) return;
             const int64_t number = own.number(i);
             P value[width], passed[width], dx[width];
             load(x + Own::place(i), value);
             load(dy + Own::place(i), passed);
             differentiate(call, [&](int j) { return rules[rows ? j : 0]; }, value, passed, dx);
             write<rows>(call.dx, number, dx);
             if (call.dresidual.data) write<rows>(call.dresidual, number, passed);
           });
}

// ---- on the host ----

std::atomic<int64_t> most_held{INT64_MAX};

template <class P, bool rows, int width>
auto kernel_of(const BatchNormForward&) {
  return normalize_held<P, rows, width>;
}
template <class P, bool rows, int width>
auto kernel_of(const BatchNormBackward&) {
  return gradient_held<P, rows, width>;
}

// What is worth it, by what one processor has to hold in all. It reads and writes at about the pace of
// passes over arrays, but waits where these keep others busy; of rows and single elements it moves half
// as much at a time.
template <bool rows, int width>
bool pays(int64_t bytes, int64_t blocks, int64_t processors) {
  const int64_t share = bytes * over(blocks, processors), spread = bytes * blocks / processors;
  return rows || width == 1 ? share <= 64 << 10 : share - spread <= 64 << 10;
}

// `arrays` are held.
template <class P, bool rows, int width, class Call>
bool queue_if_held(const Call& call, const Channels& s, int arrays) {
  using Own = Held<P, rows, width>;
  const int64_t bytes = Own(s, 0).bytes(arrays), blocks = s.space.channels / Own::channels;
  const int processors = asked(call.place, cudaDevAttrMultiProcessorCount);
  if (bytes > most_shared(call.place) || bytes > most_held) return false;
  if (!pays<rows, width>(bytes, blocks, processors)) return false;
  const int threads = blocks > processors ? 256 : kMostThreads<width>;
  launch(call.place, kernel_of<P, rows, width>(call), Grid{blocks, threads, bytes}, call, s);
  return true;
}

// Of the bits of ReLU that a call writes, a byte belongs to one block and to neighbouring threads.
template <class P, class Call>
bool queue(const Call& call, const Channels& s, int arrays, bool vectors, bool writes_bits) {
  constexpr int width = kPerVector<P>;
  if (s.count > INT32_MAX / width) return false;
  if (s.space.rows)
    return vectors && s.space.channels % width == 0 && (!writes_bits || width == 8) &&
           queue_if_held<P, true, width>(call, s, arrays);
  if (writes_bits && s.space.inner % 8 != 0) return false;
  if (vectors && s.space.inner % width == 0) return queue_if_held<P, false, width>(call, s, arrays);
  if (vectors && s.space.inner % (width / 2) == 0)
    return queue_if_held<P, false, width / 2>(call, s, arrays);
  return queue_if_held<P, false, 1>(call, s, arrays);
}

}  // namespace

void hold_at_most(int64_t bytes) { most_held = bytes; }

bool queue_held(const BatchNormForward& call, const Channels& s) {
  if (call.evaluate || call.given.mean || s.count == 0) return false;
  if (!all_flat(s, call.dtype, call.x, call.residual, call.y)) return false;
  const bool vectors = all_aligned(call.x, call.residual, call.y);
  bool queued = false;
  with_dtype(call.dtype,
             [&]<class P> { queued = queue<P>(call, s, 1, vectors, call.kept != nullptr); });
  return queued;
}

bool queue_held(const BatchNormBackward& call, const Channels& s) {
  if (call.given || call.count == 0.0 || !call.dx.data || s.count == 0) return false;
  if (!all_flat(s, call.dtype, call.x, call.dy, call.dx, call.dresidual)) return false;
  const bool vectors = all_aligned(call.x, call.dy, call.dx, call.dresidual);
  bool queued = false;
  with_dtype(call.dtype, [&]<class P> { queued = queue<P>(call, s, 2, vectors, false); });
  return queued;
}

}  // namespace fastopt::cuda
