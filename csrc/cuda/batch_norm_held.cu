// BatchNorm in one kernel, where a block can hold its channels: they are read once and written once, and no
// block waits for another.
//
// Floors on an H100 (3.0 TB/s of a copy, 132 processors at 1.98 GHz), ResNet-50's last stage, 512 channels
// of 1568 float32: forward moves 6.4 MB, 2.1 us, backward 9.6 MB, 3.2 us. A launch, a read of what is in no
// cache and the chain from a sum to a rule take more: some 2, 1 and 2 us.
#include <atomic>

#include "cuda/batch_norm.hpp"
#include "cuda/batch_norm_elements.hpp"
#include "cuda/batch_norm_held.hpp"
#include "cuda/flat.hpp"

namespace fastopt::cuda {
namespace {

// ---- arrays in memory, and what is held of them ----

template <class P, int width>
__device__ __forceinline__ void read(const ChannelArray& from, int64_t number, P (&to)[width]) {
  load(reinterpret_cast<const P*>(from.data) + number, to);
}
template <class P, int width>
__device__ __forceinline__ void write(const ChannelArray& to, int64_t number, const P (&from)[width]) {
  store(reinterpret_cast<P*>(to.data) + number, from);
}
// `width` is one, or a vector.
template <class P, int width>
__device__ __forceinline__ void hold(P* to, const P (&from)[width]) {
  if constexpr (width == 1) {
    *to = from[0];
  } else {
    uint4 vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    *reinterpret_cast<uint4*>(to) = vector;
  }
}

// ---- kernels ----

template <class P, bool rows, int width>
__global__ void __launch_bounds__(Held<P, rows, width>::threads, width == 1 ? 6 : 2)
    normalize_held(const FASTOPT_WHOLE_ARGUMENT BatchNormForward call,
                   const FASTOPT_WHOLE_ARGUMENT Channels s) {
  using Own = Held<P, rows, width>;
  using F = Compute<P>;
  __shared__ Normalize<F> finished[Own::channels];
  const Own own(s, int64_t(blockIdx.x) * Own::channels);
  P* const x = shared_room<P>();
  Pair* const sums = reinterpret_cast<Pair*>(x + own.room());
  const int64_t c = own.channel + threadIdx.x;
  ForwardInputs inputs{};
  if (threadIdx.x < Own::channels) inputs = inputs_of(call, c);

  P taken[kTaken][width];
  own.each([&](int k, int i) { read(call.x, own.number(i), taken[k]); },
                           [&](int k, int i, bool there) {
                             if (there) hold(x + Own::place(i), taken[k]);
                           });
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
        if (call.residual.data) read(call.residual, own.number(i), taken[k]);
      },
      [&](int k, int i, bool there) {
        const int64_t number = own.number(i);
        unsigned bits = 0;
        if (there) {
          P value[width], y[width];
          load(x + Own::place(i), value);
          bits = normalize(call, [&](int j) { return rules[rows ? j : 0]; }, value, taken[k], y);
          write(call.y, number, y);
        }
        if (call.kept) put_bits<width>(call.kept, number, there, bits);
      });
}

template <class P, bool rows, int width>
__global__ void __launch_bounds__(Held<P, rows, width>::threads, width == 1 ? 6 : 2)
    gradient_held(const FASTOPT_WHOLE_ARGUMENT BatchNormBackward call,
                  const FASTOPT_WHOLE_ARGUMENT Channels s) {
  using Own = Held<P, rows, width>;
  using F = Compute<P>;
  __shared__ NormalizeBackward<F> finished[Own::channels];
  const Own own(s, int64_t(blockIdx.x) * Own::channels);
  P *const x = shared_room<P>(), *const dy = x + own.room();
  Pair* const sums = reinterpret_cast<Pair*>(dy + own.room());
  const int64_t c = own.channel + threadIdx.x;
  BackwardInputs inputs{};
  if (threadIdx.x < Own::channels) inputs = inputs_of(call, c);
  const int turn = int(threadIdx.x) % Own::step;
  const double mean = call.mean[own.channel + (rows ? turn : 0)];

  P x_taken[kTaken][width], dy_taken[kTaken][width];
  unsigned on[kTaken];
  own.each(
      [&](int k, int i) {
        const int64_t number = own.number(i);
        read(call.x, number, x_taken[k]);
        read(call.dy, number, dy_taken[k]);
        on[k] = bits_from(call.kept, number);
      },
      [&](int k, int i, bool there) {
        if (!there) return;
        if (call.kept) let_pass(on[k], dy_taken[k]);
        hold(x + Own::place(i), x_taken[k]);
        hold(dy + Own::place(i), dy_taken[k]);
      });
  __syncthreads();
  using Sums = GradientSums<P, false>;
  own.template sum<Sums>(
      sums, [&](int) { return mean; }, [&](int i) { return typename Sums::Value{x[i], dy[i], true}; });
  if (threadIdx.x < Own::channels) {
    const ChannelSums own_sums{sums[threadIdx.x].first, sums[threadIdx.x].second};
    finished[threadIdx.x] =
        gradient_of<F>(call, inputs, finish_backward<F>(call, c, inputs, own_sums));
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
                             write(call.dx, number, dx);
                             if (call.dresidual.data) write(call.dresidual, number, passed);
                           });
}

// ---- on the host ----

std::atomic<int64_t> most_held{INT64_MAX};

int64_t shared_limit(const Place& place) {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, place.device),
        "the device has no shared memory");
  const int64_t there = bytes - 1024;  // less what the system takes, and a kernel declares
  return there < most_held ? there : most_held.load();
}

template <class P, bool rows, int width>
auto kernel_of(const BatchNormForward&) {
  return normalize_held<P, rows, width>;
}
template <class P, bool rows, int width>
auto kernel_of(const BatchNormBackward&) {
  return gradient_held<P, rows, width>;
}

template <class P, bool rows, int width, class Call>
bool queue_if_held(const Call& call, const Channels& s, int arrays, int64_t limit) {
  using Own = Held<P, rows, width>;
  const int64_t bytes = Own(s, 0).bytes(arrays);
  if (bytes > limit) return false;
  launch(call.place, kernel_of<P, rows, width>(call),
         Grid{s.space.channels / Own::channels, Own::threads, bytes}, call, s);
  return true;
}

// `arrays` are held. Of the bits of ReLU that a call writes, a byte belongs to one block and to
// neighbouring threads.
template <class P, class Call>
bool queue(const Call& call, const Channels& s, int arrays, bool vectors, bool writes_bits) {
  constexpr int width = kPerVector<P>;
  const int64_t limit = shared_limit(call.place);
  if (s.count * int64_t(sizeof(P)) > limit) return false;
  if (s.space.rows)
    return vectors && s.space.channels % width == 0 && (!writes_bits || width == 8) &&
           queue_if_held<P, true, width>(call, s, arrays, limit);
  if (writes_bits && s.space.inner % 8 != 0) return false;
  return vectors && s.space.inner % width == 0
             ? queue_if_held<P, false, width>(call, s, arrays, limit)
             : queue_if_held<P, false, 1>(call, s, arrays, limit);
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
