// What a block holds of its channels in shared memory, and how it sums that in the tree's order.
#pragma once

#include "cuda/batch_norm_sums.hpp"

namespace fastopt::cuda {

inline constexpr int kTaken = 8;  // vectors, or elements, that a thread asks for at once

// Of planes a block has one channel, of rows those of a vector, side by side. Values stand in the order
// of positions, `width` of them are moved at once, and after each of the tree's blocks there is a gap:
// who sums another one at the same time reads other banks.
template <class P, bool rows, int width>
struct Held {
  static constexpr int channels = rows ? kPerVector<P> : 1;
  static constexpr int step = rows ? channels : kLanes;  // from a value to the next that a thread sums
  static constexpr int block = rows ? kRowBlock * channels : kPlaneBlock;

  int64_t channel;  // the first
  int values;
  int blocks;               // of the tree
  unsigned inner, inverse;  // of planes: what belongs together, and its quotients
  int64_t begin, apart;     // where the first value lies, and how far it is to the next plane or row

  __host__ __device__ __forceinline__ Held(const Channels& s, int64_t first)
      : channel(first),
        values(int(s.count) * channels),
        blocks((values + block - 1) / block),
        inner(unsigned(s.space.inner)),
        inverse(unsigned(s.by_inner >> 32)),
        begin(first * s.space.inner),
        apart(s.space.channels * s.space.inner) {}

  // Where value i stands, how many of an array there is room for, and bytes of some arrays and the
  // sums.
  static __host__ __device__ __forceinline__ int place(int i) { return i + i / block * step; }
  __host__ __device__ __forceinline__ int room() const {
    return (place(values - 1) / kPerVector<P> + 1) * kPerVector<P>;
  }
  int64_t bytes(int arrays) const {
    return arrays * int64_t(room() * sizeof(P)) + blocks * int64_t(channels * sizeof(Pair));
  }

  // The number of value i, and so where it lies in flat arrays. Fewer than 2^31 are held.
  __device__ __forceinline__ int64_t number(int i) const {
    if constexpr (rows) return begin + i / channels * apart;
    if (inner <= 1) return begin + i * apart;
    unsigned plane = __umulhi(unsigned(i), inverse), rest = unsigned(i) - plane * inner;
    if (rest >= inner) ++plane, rest -= inner;
    return begin + plane * apart + rest;
  }

  // Every `width`-th value, kTaken for each thread at a time: first ask(k, i) for those that are there,
  // then use(k, i, there) by all threads.
  template <class Ask, class Use>
  __device__ __forceinline__ void each(Ask&& ask, Use&& use) const {
    const int apart = int(blockDim.x) * width;
    for (int begin = 0; begin < values; begin += kTaken * apart) {
      const int first = begin + int(threadIdx.x) * width;
#pragma unroll
      for (int k = 0; k < kTaken; ++k)
        if (first + k * apart < values) ask(k, first + k * apart);
#pragma unroll
      for (int k = 0; k < kTaken; ++k) use(k, first + k * apart, first + k * apart < values);
    }
  }

  // From start(first) and at(i), the first of a block and value i where they stand, a channel's sums
  // come to stand at sums[0], the next channel's after it.
  template <class Sums, class Start, class At>
  __device__ __forceinline__ void sum(Pair* sums, Start&& start, At&& at) const {
    for (int warp = int(threadIdx.x) / 32 * 32; warp < blocks * step; warp += int(blockDim.x)) {
      const int turn = warp + int(threadIdx.x) % 32, lane = turn % step, begin = turn / step * block;
      const int end = begin + block < values ? begin + block : values;
      Sums own(start(place(begin < values ? begin + (rows ? lane : 0) : 0)));
      const int first = place(begin + lane), count = (end - begin - lane + step - 1) / step;
#pragma unroll 16
      for (int k = 0; k < count; ++k) own.add(at(first + k * step));
      if constexpr (!rows) join_lanes_of(own, lane);
      if (end > begin && (rows || lane == 0))
        sums[turn / step * channels + (rows ? lane : 0)] = own.close((end - begin) / channels);
    }
    join_all<typename Sums::How>(sums);
  }

 private:
  template <class How>
  __device__ __forceinline__ void join_all(Pair* sums) const {
    constexpr int size = block / channels;
    const int count = values / channels;
    for (int apart = 1; apart < blocks; apart *= 2) {
      __syncthreads();
      for (int i = int(threadIdx.x); i < blocks * channels; i += int(blockDim.x)) {
        const int a = i / channels, b = a + apart;
        if (a % (2 * apart) != 0 || b >= blocks) continue;
        Pair &own = sums[i], &other = sums[i + apart * channels];
        How::join(own.first, own.second, other.first, other.second, values_in(a, apart, size, count),
                  values_in(b, apart, size, count));
      }
    }
    __syncthreads();
  }
};

}  // namespace fastopt::cuda
