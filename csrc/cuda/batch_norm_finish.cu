// From the sums of groups to what a channel's elements are computed with.
#include "cuda/batch_norm_passes.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kJoiners = 256;

struct Joining {
  Pair* parts;
  Groups groups;
  int64_t channels, count;
  int threads;  // for each channel: a power of two
};

// A whole subtree for each thread and then those: a power of two to each keeps the tree as it is. The
// first thread of a channel has the result.
template <class How>
__device__ __forceinline__ Pair join_channel(const Joining& t, int64_t c) {
  __shared__ Pair joined[kJoiners];
  const int channels = kJoiners / t.threads, turn = int(threadIdx.x) / channels;
  int64_t own = 1;
  while (own * t.threads < t.groups.count) own *= 2;
  const int64_t size = own * t.groups.size, begin = turn * size;
  Pair& mine = joined[threadIdx.x];
  mine = {0.0, 0.0};
  if (c < t.channels && begin < t.count) {
    Pair* const parts = t.parts + turn * own * t.channels + c;
    const int64_t rest = t.count - begin;
    join_blocks<How>(&parts->first, &parts->second, 2 * t.channels, 1, t.groups.size,
                     rest < size ? rest : size);
    mine = *parts;
  }
  for (int step = 1; step < t.threads; step *= 2) {
    __syncthreads();
    if (turn % (2 * step) != 0 || (turn + step) * size >= t.count) continue;
    const Pair& other = joined[threadIdx.x + step * channels];
    How::join(mine.first, mine.second, other.first, other.second, values_in(turn, step, size, t.count),
              values_in(turn + step, step, size, t.count));
  }
  return mine;
}

template <class Finish>
__global__ void __launch_bounds__(kJoiners)
    finish_channels(const Joining t, const FASTOPT_WHOLE_ARGUMENT Finish finish) {
  const int channels = kJoiners / t.threads;
  const int64_t c = int64_t(blockIdx.x) * channels + threadIdx.x % channels;
  const Pair sums = join_channel<typename Finish::How>(t, c);
  if (int(threadIdx.x) < channels && c < t.channels) finish(c, sums);
}

template <class Finish>
void queue(const Place& place, const ChannelSpace& s, Pair* parts, const Finish& finish) {
  Joining t{parts, groups_of(s), s.channels, parts ? s.count() : 0, 1};
  if (!parts) t.groups.count = 0;
  while (t.threads < t.groups.count && t.threads < kJoiners) t.threads *= 2;
  launch(place, finish_channels<Finish>, over(s.channels, kJoiners / t.threads), kJoiners, t, finish);
}

// ---- what follows for a channel ----

struct FinishMoments {
  using How = JoinMoments;
  Statistics out;

  __device__ __forceinline__ void operator()(int64_t c, const Pair& m) const {
    out.mean[c] = m.first;
    out.m2[c] = m.second;
  }
};

template <class F>
struct FinishForward {
  using How = JoinMoments;
  BatchNormForward call;
  RuleArrays rules;
  double count;

  __device__ __forceinline__ void operator()(int64_t c, const Pair& m) const {
    if (call.given.mean)
      finish_forward(call, c, {call.given.mean[c], call.given.m2[c]}, call.given.count);
    else
      finish_forward(call, c, {m.first, m.second}, count);
    rules.put(c, normalize_of<F>(call, c));
  }
};

template <class F>
struct FinishBackward {
  using How = JoinSums;
  BatchNormBackward call;
  RuleArrays rules;

  __device__ __forceinline__ void operator()(int64_t c, const Pair& sums) const {
    if (!call.given) {
      call.sums.dy[c] = sums.first;
      call.sums.dy_centred[c] = sums.second;
    }
    finish_backward<F>(call, c);
    rules.put(c, gradient_of<F>(call, c));
  }
};

}  // namespace

void queue_finish(const BatchMoments& call, Pair* parts) {
  queue(call.place, call.space, parts, FinishMoments{call.out});
}

void queue_finish(const BatchNormForward& call, Pair* parts, const RuleArrays& rules) {
  const double count = double(call.space.count());
  if (call.dtype == DType::float64)
    queue(call.place, call.space, parts, FinishForward<double>{call, rules, count});
  else
    queue(call.place, call.space, parts, FinishForward<float>{call, rules, count});
}

void queue_finish(const BatchNormBackward& call, Pair* parts, const RuleArrays& rules) {
  if (call.dtype == DType::float64)
    queue(call.place, call.space, parts, FinishBackward<double>{call, rules});
  else
    queue(call.place, call.space, parts, FinishBackward<float>{call, rules});
}

}  // namespace fastopt::cuda
