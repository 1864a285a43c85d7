// Sums of the blocks of the tree (rules/moments.hpp). In planes layout, sixteen threads hold the lanes
// of a quarter; in rows layout, a thread holds one channel of a quarter, and adjacent threads hold
// adjacent channels.
//
// Lower bounds on an H200 (4.3 TB/s in a copy, 132 multiprocessors at 1.98 GHz, each with 64 double
// operations a cycle), for 10^9 values of float32: moments move 4 GB, 0.93 ms, and take 4 operations a
// value, 0.24 ms; the sums of backward move 8 GB, 1.86 ms, and take 3 operations a value, 0.18 ms.
#include "cuda/batch_norm_sums.hpp"
#include "cuda/flat.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kPlaneBlocks = 4;  // per group
constexpr int kPlaneThreads = kPlaneBlocks * kQuarters * kLanes;
constexpr int kRowPlaces = 128;  // per group: channels, 32 at most, times blocks

// Resident threads of a multiprocessor that registers must allow if each loads `few` values ahead,
// twice as many, or four times as many.
constexpr int kThreadsPerSm = 1024, kThreadsPerSmTwice = 768, kThreadsPerSmFour = 512;

int row_channels(const ChannelSpace& s) {
  int n = 1;
  while (n < s.channels && n < 32) n *= 2;
  return n;
}

// ---- groups ----

// The position of a tree block, and the range of its positions that belongs to one thread or to 16
// lanes.
struct ThreadRange {
  int64_t block, begin, end;

  __device__ __forceinline__ ThreadRange(int64_t begin_of_block, int index, int size, int64_t count,
                                         int of = kQuarters)
      : block(begin_of_block), begin(block + index * (size / of)) {
    end = min64(begin + size / of, count);
  }
};

template <bool separate_quarters>
constexpr int kSharing = separate_quarters ? kQuarters : 1;  // threads per tree block and channel

template <class Sums>
__global__ void __launch_bounds__(kPlaneThreads, kThreadsPerSmTwice / kPlaneThreads)
    sum_planes(const FASTOPT_GRID_CONSTANT Reduction r) {
  __shared__ Pair scratch[kPlaneThreads], blocks[kPlaneBlocks];
  __shared__ Weights last[kLevels];
  const unsigned channels = unsigned(r.s.space.channels);
  const int64_t c = blockIdx.x % channels, count = r.s.count;
  const int64_t group = blockIdx.x / channels * r.group, values = min64(r.group, count - group);
  const int block_count = int(ceil_div(values, kPlaneBlock));
  const int lane = int(threadIdx.x) % kLanes, quarter = int(threadIdx.x) / kLanes;
  const int block = quarter / kQuarters;
  const ThreadRange own(group + block * int64_t(kPlaneBlock), quarter % kQuarters, kPlaneBlock, count);
  weigh_last(last, block_count, kPlaneBlock, values);
  grid_dependency_wait();
  Sums sums = sum_range<ThreadSum<Sums, kLanes, Sums::times / 2 * Sums::few, false>>(
      r, {c, block < block_count ? own.block : 0}, {c, own.begin + lane}, own.end);
  add_quarters(sums, scratch, kPlaneThreads, kLanes);
  join_lanes_of(sums, lane);
  if (quarter % kQuarters == 0 && lane == 0 && block < block_count)
    blocks[block] = sums.close(min64(kPlaneBlock, count - own.block));
  join_neighbors<typename Sums::Combine>(blocks, 1, block_count, kPlaneBlock, last);
  if (threadIdx.x == 0) r.pairs[blockIdx.x] = blocks[0];
}

// One thread per quarter, or one for all four quarters of a tree block.
template <class Sums, bool separate_quarters>
__global__ void __launch_bounds__(kRowPlaces* kSharing<separate_quarters>,
                                  (separate_quarters ? kThreadsPerSm : kThreadsPerSmFour) /
                                      (kRowPlaces * kSharing<separate_quarters>))
    sum_rows(const FASTOPT_GRID_CONSTANT Reduction r) {
  constexpr int sharing = kSharing<separate_quarters>;
  __shared__ Pair scratch[separate_quarters ? kRowPlaces * sharing : 1], blocks[kRowPlaces];
  __shared__ Weights last[kLevels];
  const int64_t channels = r.s.space.channels, count = r.s.count;
  const int width = r.channels_a_row, lane = int(threadIdx.x) % width, share = int(threadIdx.x) / width;
  const int64_t c = int64_t(blockIdx.x % r.stripes) * width + lane;
  const unsigned index = blockIdx.x / r.stripes;
  const int64_t group = index * r.group, values = min64(r.group, count - group);
  const int block_count = int(ceil_div(values, kRowBlock)), block = share / sharing;
  const ThreadRange own(group + block * int64_t(kRowBlock), share % sharing, kRowBlock, count, sharing);
  weigh_last(last, block_count, kRowBlock, values);
  grid_dependency_wait();
  const bool there = c < channels && block < block_count;
  Sums sums = sum_range<
      ThreadSum<Sums, 1, (separate_quarters ? 1 : Sums::times) * Sums::few, !separate_quarters>>(
      r, {there ? c : 0, there ? own.block : 0}, {c, own.begin}, there ? own.end : 0);
  if constexpr (separate_quarters) add_quarters(sums, scratch, kRowPlaces * sharing, width);
  if (share % sharing == 0)
    blocks[block * width + lane] = sums.close(min64(kRowBlock, count - own.block));
  join_neighbors<typename Sums::Combine>(blocks, width, block_count, kRowBlock, last);
  if (share == 0 && c < channels) r.pairs[index * channels + c] = blocks[lane];
}

// ---- on the host ----

// For at most one outer axis.
Strides strides_of(const ChannelSpace& s, int64_t stride, int64_t segment, int64_t value) {
  return {stride / s.inner * segment + stride % s.inner * value, segment - s.inner * value};
}

Reduction reduction_of(const Channels& channels, DType dtype, const ChannelArray& x, Pair* pairs) {
  const ChannelSpace& s = channels.space;
  const int64_t stride = s.rows ? 1 : kLanes;
  const int width = row_channels(s);
  return {.s = channels,
          .x = x,
          .dy = {},
          .relu_mask = nullptr,
          .mean = nullptr,
          .even = s.ndim <= 1,
          .remainder = stride % s.inner,
          .x_strides = strides_of(s, stride, s.ndim > 0 ? x.stride[0] : 0, int64_t(bytes_of(dtype))),
          .dy_strides = {},
          .index_strides = {},
          .group = groups_of(s).size,
          .channels_a_row = width,
          .stripes = unsigned(ceil_div(s.channels, width)),
          .pairs = pairs};
}

template <class P>
using PlainSums = GradientSums<P, false>;
template <class P>
using MaskedSums = GradientSums<P, true>;

// In rows layout, quarters get threads of their own if the multiprocessors would have little work
// otherwise.
template <template <class> class Sums>
void queue_sums(const Place& place, DType dtype, const Reduction& r) {
  const ChannelSpace& s = r.s.space;
  const int64_t groups = groups_of(s).count, rows = groups * r.stripes;
  const bool separate_quarters = rows <= 2 * device_attribute(place, cudaDevAttrMultiProcessorCount);
  with_dtype(dtype, [&]<class P> {
    if (!s.rows)
      launch(place, sum_planes<Sums<P>>, groups * s.channels, kPlaneThreads, r);
    else if (separate_quarters)
      launch(place, sum_rows<Sums<P>, true>, rows, kRowPlaces * kSharing<true>, r);
    else
      launch(place, sum_rows<Sums<P>, false>, rows, kRowPlaces * kSharing<false>, r);
  });
}

}  // namespace

Groups groups_of(const ChannelSpace& s) {
  const int64_t size =
      s.rows ? kRowPlaces / row_channels(s) * int64_t(kRowBlock) : kPlaneBlocks * int64_t(kPlaneBlock);
  return {size, ceil_div(s.count(), size)};
}

void queue_moments(const Place& place, const Channels& s, DType dtype, const ChannelArray& x,
                   Pair* pairs) {
  queue_sums<MomentSums>(place, dtype, reduction_of(s, dtype, x, pairs));
}

void queue_backward_sums(const BatchNormBackward& call, const Channels& channels, Pair* pairs) {
  const ChannelSpace& s = channels.space;
  const int64_t stride = s.rows ? 1 : kLanes;
  Reduction r = reduction_of(channels, call.dtype, call.x, pairs);
  r.dy = call.dy;
  r.relu_mask = call.relu_mask;
  r.mean = call.mean;
  r.dy_strides =
      strides_of(s, stride, s.ndim > 0 ? call.dy.stride[0] : 0, int64_t(bytes_of(call.dtype)));
  // From segment to segment the index advances evenly if a plane is a segment, or all of a channel.
  const bool whole = channels.plane == s.count();
  r.index_strides = strides_of(s, stride, whole && !s.rows ? s.inner : s.channels * s.inner, 1);
  r.even = r.even && (s.rows || whole || channels.plane == s.inner);
  r.relu_mask ? queue_sums<MaskedSums>(call.place, call.dtype, r)
              : queue_sums<PlainSums>(call.place, call.dtype, r);
}

}  // namespace fastopt::cuda
