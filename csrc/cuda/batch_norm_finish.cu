// From the sums of groups to what a channel's elements are computed with. Where sums are given there is
// nothing to join.
#include "cuda/batch_norm_join.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kFinishers = 256;  // threads of a block

// How sums are joined for every channel, by so many threads of a block.
struct Finishing {
  Pair* pairs;
  Groups groups;
  int64_t channels, count;
  int rounds;   // in which four groups become one, until there is a thread for each
  int threads;  // for each channel: a power of two
};

// ---- joining groups ----

// Four neighbours at most, of `size` values each but the last, in the tree's shape. `number` may be
// more, or none; of as many there are `count` values.
template <class How>
__device__ __forceinline__ Pair join_four(const Pair* from, int64_t apart, int64_t number, int64_t size,
                                          int64_t count) {
  Pair own[4]{};
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (k < number) own[k] = from[k * apart];
#pragma unroll
  for (int step = 1; step < 4; step *= 2)
#pragma unroll
    for (int k = 0; k + step < 4; k += 2 * step)
      if (k + step < number)
        How::join(own[k].first, own[k].second, own[k + step].first, own[k + step].second,
                  weights_of(values_in(k, step, size, count), values_in(k + step, step, size, count)));
  return own[0];
}

// The groups of a channel after `rounds` of four, joined where they stand: no more than there are
// threads for it.
struct Rest {
  int64_t number, size, apart;

  __device__ __forceinline__ explicit Rest(const Finishing& t)
      : number(t.groups.count), size(t.groups.size), apart(t.channels) {}
  __device__ __forceinline__ void round() {
    number = (number + 3) / 4;
    size *= 4;
    apart *= 4;
  }
};

// The first thread of a channel has the result.
template <class How>
__device__ __forceinline__ Pair join_channel(const Finishing& t, int64_t c, const Weights* last) {
  __shared__ Pair joined[kFinishers];
  const int channels = kFinishers / t.threads, turn = int(threadIdx.x) / channels;
  const bool there = c < t.channels;
  Pair* const groups = t.pairs + c;
  Rest rest(t);
  for (int r = 0; r < t.rounds; ++r, rest.round(), __syncthreads())
    for (int64_t i = 4 * turn; there && i < rest.number; i += 4 * t.threads) {
      Pair* const four = groups + i * rest.apart;
      *four = join_four<How>(four, rest.apart, rest.number - i, rest.size, t.count - i * rest.size);
    }
  Pair own{};
  if (there && turn < rest.number) own = groups[turn * rest.apart];
  joined[threadIdx.x] = own;
  join_neighbours<How>(joined, channels, int(rest.number), rest.size, last);
  return joined[threadIdx.x];
}

// ---- what follows for a channel ----

struct FinishMoments {
  using How = JoinMoments;
  struct Inputs {};
  const BatchMoments& call;

  __device__ __forceinline__ Inputs inputs(int64_t) const { return {}; }
  __device__ __forceinline__ Pair numbers(int64_t, Inputs, const Pair& m, double) const { return m; }
  __device__ __forceinline__ void put(int64_t c, Inputs, const Pair& m) const {
    call.out.mean[c] = m.first;
    call.out.m2[c] = m.second;
  }
};

template <class F>
struct FinishForward {
  using How = JoinMoments;
  using Inputs = ForwardInputs;
  using Rule = Normalize<F>;
  struct Numbers {
    Moments m;
    double count;
    Affine affine;
  };
  const BatchNormForward& call;

  __device__ __forceinline__ Inputs inputs(int64_t c) const { return inputs_of(call, c); }
  __device__ __forceinline__ Numbers numbers(int64_t c, const Inputs& in, const Pair& sums,
                                             double count) const {
    Moments m{sums.first, sums.second};
    if (const Statistics& given = call.given; given.mean) {
      m = {given.mean[c], given.m2[c]};
      count = given.count;
    }
    return {m, count, affine_of(call, in, m, count)};
  }
  __device__ __forceinline__ Rule rule(const Inputs&, const Numbers& own) const {
    return normalize_of<F>(own.affine);
  }
  __device__ __forceinline__ void put(int64_t c, const Inputs& in, const Numbers& own) const {
    put_results(call, c, in, own.m, own.count, own.affine);
  }
};

template <class F>
struct FinishBackward {
  using How = JoinSums;
  using Inputs = BackwardInputs;
  using Rule = NormalizeBackward<F>;
  const BatchNormBackward& call;

  __device__ __forceinline__ Inputs inputs(int64_t c) const { return inputs_of(call, c); }
  __device__ __forceinline__ ChannelSums numbers(int64_t c, const Inputs& in, const Pair& sums,
                                                 double) const {
    return centred<F>(call, in, call.given ? sums_of(call, c) : ChannelSums{sums.first, sums.second});
  }
  __device__ __forceinline__ Rule rule(const Inputs& in, const ChannelSums& own) const {
    return gradient_of<F>(call, in, own);
  }
  __device__ __forceinline__ void put(int64_t c, const Inputs& in, const ChannelSums& own) const {
    put_results(call, c, in, own);
  }
};

// ---- the kernel ----

// Where sums are joined, they are this stream's latest work, which waited for all before it: what a
// channel brings along is read before they are there, and the kernel after this one, which goes over
// elements, may come and ask for them.
template <class Finish, class Call>
__global__ void __launch_bounds__(kFinishers)
    finish_all(const Finishing t, const FASTOPT_WHOLE_ARGUMENT Call call, const RuleArrays rules) {
  t.pairs ? call_next() : await_turn();
  __shared__ Weights last[kLevels];
  const Finish finish{call};
  const int channels = kFinishers / t.threads;
  const int64_t c = int64_t(blockIdx.x) * channels + threadIdx.x % channels;
  const bool first = int(threadIdx.x) < channels && c < t.channels;
  typename Finish::Inputs inputs{};
  if (first) inputs = finish.inputs(c);
  Rest rest(t);
  for (int r = 0; r < t.rounds; ++r) rest.round();
  weigh_last(last, int(rest.number), rest.size, t.count);
  await_turn();
  const Pair sums = join_channel<typename Finish::How>(t, c, last);
  if (!first) return;
  const auto numbers = finish.numbers(c, inputs, sums, double(t.count));
  if constexpr (requires { typename Finish::Rule; }) rules.put(c, finish.rule(inputs, numbers));
  finish.put(c, inputs, numbers);
}

// ---- on the host ----

template <class Finish, class Call>
void queue(const Call& call, Pair* pairs, const RuleArrays& rules) {
  const ChannelSpace& s = call.space;
  Finishing t{pairs, groups_of(s), s.channels, pairs ? s.count() : 0, 0, 1};
  if (!pairs) t.groups.count = 0;
  int64_t rest = t.groups.count;
  for (; rest > kFinishers; rest = over(rest, 4)) ++t.rounds;
  while (t.threads < rest) t.threads *= 2;
  launch(call.place, finish_all<Finish, Call>, over(s.channels, kFinishers / t.threads), kFinishers, t,
         call, rules);
}

}  // namespace

void queue_finish(const BatchMoments& call, Pair* pairs) {
  queue<FinishMoments>(call, pairs, RuleArrays{});
}

void queue_finish(const BatchNormForward& call, Pair* pairs, const RuleArrays& rules) {
  call.dtype == DType::float64 ? queue<FinishForward<double>>(call, pairs, rules)
                               : queue<FinishForward<float>>(call, pairs, rules);
}

void queue_finish(const BatchNormBackward& call, Pair* pairs, const RuleArrays& rules) {
  call.dtype == DType::float64 ? queue<FinishBackward<double>>(call, pairs, rules)
                               : queue<FinishBackward<float>>(call, pairs, rules);
}

}  // namespace fastopt::cuda
