// BatchNorm in one kernel, where a block, or a cluster of blocks, can hold its channels in shared
// memory: they are read once and written once, and a block waits only for blocks of its cluster.
//
// Lower bounds on an H100 (3.0 TB/s in a copy, 132 multiprocessors at 1.98 GHz), for ResNet-50's last
// stage, 512 channels of 1568 float32: forward moves 6.4 MB, 2.1 us, backward 9.6 MB, 3.2 us. A
// launch, an uncached read and the dependent chain from a sum to a rule add more: about 2, 1 and 2 us.
// Its first stage in planes layout, 64 channels of 100352: forward moves 51.4 MB, 17.1 us; 28.6 us
// were measured with clusters of two blocks, and 33.5 us with separate passes, which have become
// faster since.
#include <algorithm>
#include <atomic>
#include <optional>

#include "cuda/batch_norm.hpp"
#include "cuda/batch_norm_elements.hpp"
#include "cuda/batch_norm_smem.hpp"
#include "cuda/flat.hpp"

namespace fastopt::cuda {
namespace {

// If elements are moved one at a time, more blocks are needed for enough loads in flight.
template <int width>
constexpr int kThreads = width == 1 ? 256 : kMaxThreads;
template <class P, int width>  // minimum of resident blocks that registers must allow
constexpr int kMinBlocksPerSm = width > 1 ? 1 : (sizeof(P) > 4 ? 3 : 4);

// ---- arrays in global and in shared memory ----

// In rows layout, half of each 32-byte sector belongs to another block.
template <bool rows, class P, int width>
__device__ __forceinline__ void read(const ChannelArray& from, int64_t index, P (&to)[width]) {
  load<width, rows ? CacheHint::normal : CacheHint::streaming>(
      reinterpret_cast<const P*>(from.data) + index, to);
}
template <bool rows, class P, int width>
__device__ __forceinline__ void write(const ChannelArray& to, int64_t index, const P (&from)[width]) {
  store<width, rows ? CacheHint::normal : CacheHint::streaming>(reinterpret_cast<P*>(to.data) + index,
                                                                from);
}
// Stores to shared memory.
template <class P, int width>
__device__ __forceinline__ void store_shared(P* to, const P (&from)[width]) {
  if constexpr (width == 1) {
    *to = from[0];
  } else {
    VectorOf<width, P> vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    *reinterpret_cast<VectorOf<width, P>*>(to) = vector;
  }
}

// Prefetches a channel's parameters into the L2 cache. They are loaded, and waited for, once the
// elements have arrived.
__device__ __forceinline__ void prefetch(const ChannelVector& v, int64_t c) {
#ifdef __CUDA_ARCH__
  if (v.data) asm volatile("prefetch.global.L2 [%0];" ::"l"(v.data + c * v.stride));
#endif
}
__device__ __forceinline__ void prefetch_inputs(const BatchNormForward& call, int64_t c) {
  prefetch(call.gamma, c);
  prefetch(call.beta, c);
  prefetch(call.running.mean, c);
  prefetch(call.running.var, c);
}

// ---- kernels ----

template <class P, bool rows, int width>
__global__ void __launch_bounds__(kThreads<width>, kMinBlocksPerSm<P, width>)
    normalize_smem(const FASTOPT_GRID_CONSTANT BatchNormForward call,
                   const FASTOPT_GRID_CONSTANT Channels s,
                   const FASTOPT_GRID_CONSTANT SmemLayout<P, rows> layout) {
  using Rule = Normalize<Compute<P>>;
  const SmemBlock<P, rows, width> own(s, layout);
  P* const x = dynamic_shared<P>();
  const SmemArrays<Rule> of(layout, x + layout.padded());
  weigh_last(of.last, layout.all, layout.tree_block, s.count);
  grid_dependency_wait();
  const int own_channel = own.finished();
  const bool finishes = own_channel >= 0;
  const int64_t c = own.channel + own_channel;
  if (finishes) prefetch_inputs(call, c);
  P taken[kLoadsInFlight][width];
  own.each([&](int k, int i) { read<rows>(call.x, own.index(i), taken[k]); },
           [&](int k, int i, bool there) {
             if (there) store_shared(x + layout.place(i), taken[k]);
           });
  __syncthreads();
  ForwardInputs inputs{};
  if (finishes) inputs = inputs_of(call, c);
  using Sums = MomentSums<P>;
  own.template sum<Sums>(
      of.sums, of.scratch, [&](int i) { return x[i]; },
      [&](int i) { return typename Sums::Value{x[i]}; });
  const Pair* const joined = own.template join<JoinMoments>(of.sums, of.last) + own_channel;
  Moments m{};
  Affine affine{};
  if (finishes) {
    m = {joined->first, joined->second};
    affine = affine_of(call, inputs, m, double(s.count));
    of.finished[own_channel] = normalize_of<Compute<P>>(affine);
  }
  Rule rules[SmemLayout<P, rows>::channels];
  own.share(of.finished, rules);
  if (finishes) put_results(call, c, inputs, m, double(s.count), affine);

  own.each(
      [&](int k, int i) {
        if (call.residual.data) read<rows>(call.residual, own.index(i), taken[k]);
      },
      [&](int k, int i, bool there) {
        const int64_t index = own.index(i);
        unsigned bits = 0;
        if (there) {
          P value[width], y[width];
          load(x + layout.place(i), value);
          bits = normalize(call, [&](int j) { return rules[rows ? j : 0]; }, value, taken[k], y);
          write<rows>(call.y, index, y);
        }
        if (call.relu_mask) store_mask_bits<width>(call.relu_mask, index, there, bits);
      });
  own.await_readers();
}

template <class P, bool rows, int width>
__global__ void __launch_bounds__(kThreads<width>, kMinBlocksPerSm<P, width>)
    gradient_smem(const FASTOPT_GRID_CONSTANT BatchNormBackward call,
                  const FASTOPT_GRID_CONSTANT Channels s,
                  const FASTOPT_GRID_CONSTANT SmemLayout<P, rows> layout) {
  using Rule = NormalizeBackward<Compute<P>>;
  const SmemBlock<P, rows, width> own(s, layout);
  P *const x = dynamic_shared<P>(), *const dy = x + layout.padded();
  const SmemArrays<Rule> of(layout, dy + layout.padded());
  weigh_last(of.last, layout.all, layout.tree_block, s.count);
  grid_dependency_wait();
  const double mean = call.mean[own.channel + own.summed()];
  const int own_channel = own.finished();
  const bool finishes = own_channel >= 0;
  const int64_t c = own.channel + own_channel;
  BackwardInputs inputs{};
  if (finishes) inputs = inputs_of(call, c);

  P x_taken[kLoadsInFlight][width], dy_taken[kLoadsInFlight][width];
  unsigned on[kLoadsInFlight];
  own.each(
      [&](int k, int i) {
        const int64_t index = own.index(i);
        read<rows>(call.x, index, x_taken[k]);
        read<rows>(call.dy, index, dy_taken[k]);
        on[k] = bits_from(call.relu_mask, index);
      },
      [&](int k, int i, bool there) {
        if (!there) return;
        if (call.relu_mask) apply_relu_mask(on[k], dy_taken[k]);
        store_shared(x + layout.place(i), x_taken[k]);
        store_shared(dy + layout.place(i), dy_taken[k]);
      });
  __syncthreads();
  using Sums = GradientSums<P, false>;
  own.template sum<Sums>(
      of.sums, of.scratch, [&](int) { return mean; },
      [&](int i) { return typename Sums::Value{x[i], dy[i], true}; });
  const Pair* const joined = own.template join<JoinSums>(of.sums, of.last) + own_channel;
  ChannelSums total{};
  if (finishes) {
    using F = Compute<P>;
    total = centered<F>(call, inputs, {joined->first, joined->second});
    of.finished[own_channel] = gradient_of<F>(call, inputs, total);
  }
  Rule rules[SmemLayout<P, rows>::channels];
  own.share(of.finished, rules);
  if (finishes) put_results(call, c, inputs, total);

  own.each([](int, int) {},
           [&](int, int i, bool there) {
             if (!there) return;
             const int64_t index = own.index(i);
             P value[width], passed[width], dx[width];
             load(x + layout.place(i), value);
             load(dy + layout.place(i), passed);
             differentiate(call, [&](int j) { return rules[rows ? j : 0]; }, value, passed, dx);
             write<rows>(call.dx, index, dx);
             if (call.dresidual.data) write<rows>(call.dresidual, index, passed);
           });
  own.await_readers();
}

// ---- on the host ----

std::atomic<int64_t> smem_limit{INT64_MAX};

template <class P, bool rows, int width>
auto kernel_of(const BatchNormForward&) {
  return normalize_smem<P, rows, width>;
}
template <class P, bool rows, int width>
auto kernel_of(const BatchNormBackward&) {
  return gradient_smem<P, rows, width>;
}

template <class P, bool rows>
struct SmemLaunch {
  SmemLayout<P, rows> layout;
  Grid grid;
};

// Uses as few blocks per channel as can hold it, if that pays: a multiprocessor reads and writes at
// about the speed of separate passes, but idles where these keep other multiprocessors busy. For rows
// and single elements it moves half as much at a time. All clusters must be resident at once, because
// a second wave takes as long as the first.
template <class P, bool rows, int width>
std::optional<SmemLaunch<P, rows>> plan_smem(const Place& place, const Channels& s, int arrays) {
  constexpr int64_t worth = 64 << 10;
  constexpr bool slow = rows || width == 1;
  const int64_t processors = device_attribute(place, cudaDevAttrMultiProcessorCount);
  const int64_t limit = std::min(int64_t(max_dynamic_shared(place)), smem_limit.load());
  const int most = slow ? 1 : max_cluster_size(place.device);
  for (int blocks = 1; blocks <= most; ++blocks) {
    const SmemLayout<P, rows> layout(s, blocks);
    const int64_t bytes = layout.bytes(arrays), clusters = s.space.channels / layout.channels;
    const int64_t all = clusters * blocks, share = bytes * ceil_div(all, processors);
    const int64_t loses = slow ? share : share - bytes * all / processors;
    if (bytes > limit || loses > worth || layout.all < blocks || layout.all > 1 << kLevels) continue;
    if (blocks > 1 && clusters > max_active_clusters(place.device, blocks)) continue;
    return SmemLaunch<P, rows>{layout, {all, all > processors ? 256 : kThreads<width>, bytes, blocks}};
  }
  return {};
}

// Queues the kernel if it can hold `arrays` arrays and that pays.
template <class P, bool rows, int width, class Call>
bool queue_planned(const Call& call, const Channels& s, int arrays) {
  const auto plan = plan_smem<P, rows, width>(call.place, s, arrays);
  if (plan) launch(call.place, kernel_of<P, rows, width>(call), plan->grid, call, s, plan->layout);
  return plan.has_value();
}

// When a call writes a ReLU mask, each byte belongs to one block and to adjacent threads.
template <class P, class Call>
bool queue(const Call& call, const Channels& s, int arrays, bool vectors, bool writes_bits) {
  constexpr int width = kPerVector<P>;
  const auto of = [&]<bool rows, int moved> { return queue_planned<P, rows, moved>(call, s, arrays); };
  if (s.count > INT32_MAX / 64) return false;  // at most a vector's channels, and padding
  if (s.space.rows)
    return vectors && s.space.channels % width == 0 && (!writes_bits || width == 8) &&
           of.template operator()<true, width>();
  if (writes_bits && s.space.inner % 8 != 0) return false;
  if (vectors && s.space.inner % width == 0) return of.template operator()<false, width>();
  if (vectors && s.space.inner % (width / 2) == 0) return of.template operator()<false, width / 2>();
  return of.template operator()<false, 1>();
}

}  // namespace

void set_smem_limit(int64_t bytes) { smem_limit = bytes; }

bool queue_smem(const BatchNormForward& call, const Channels& s) {
  if (call.evaluate || call.given_stats.mean || s.count == 0) return false;
  if (!all_flat(s, call.dtype, call.x, call.residual, call.y)) return false;
  const bool vectors = all_aligned(call.x, call.residual, call.y);
  bool queued = false;
  with_dtype(call.dtype,
             [&]<class P> { queued = queue<P>(call, s, 1, vectors, call.relu_mask != nullptr); });
  return queued;
}

bool queue_smem(const BatchNormBackward& call, const Channels& s) {
  if (call.sums_given || call.count == 0.0 || !call.dx.data || s.count == 0) return false;
  if (!all_flat(s, call.dtype, call.x, call.dy, call.dx, call.dresidual)) return false;
  const bool vectors = all_aligned(call.x, call.dy, call.dx, call.dresidual);
  bool queued = false;
  with_dtype(call.dtype, [&]<class P> { queued = queue<P>(call, s, 2, vectors, false); });
  return queued;
}

}  // namespace fastopt::cuda
