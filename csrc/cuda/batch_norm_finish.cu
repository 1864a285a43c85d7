// From the sums of groups to the constants with which a channel's elements are computed. If the sums
// are given, there is nothing to combine.
#include "cuda/batch_norm_join.hpp"

namespace fastopt::cuda {
namespace {

constexpr int kThreads = 256;  // per block

// How the sums of each channel are combined, and by how many threads of a block.
struct TreePlan {
  Pair* pairs;
  Groups groups;
  int64_t channels, count;
  int levels;   // each makes one group of four, until at most four per thread are left
  int threads;  // per channel, a power of two
};

// ---- combining groups ----

// Combines up to four adjacent nodes in tree order. Each covers `size` values except possibly the
// last; all `nodes` (which may be 0 or exceed 4) cover `count`. The weights depend only on sizes and
// can be computed before the sums are available.
struct FourWayJoin {
  int64_t nodes;
  Weights first, second, both;

  __device__ __forceinline__ FourWayJoin(int64_t nodes_, int64_t size, int64_t count) : nodes(nodes_) {
    const auto of = [=](int left, int distance) {
      return weights_of(values_in(left, distance, size, count),
                        values_in(left + distance, distance, size, count));
    };
    if (nodes > 1) first = of(0, 1);
    if (nodes > 3) second = of(2, 1);
    if (nodes > 2) both = of(0, 2);
  }

  template <class Combine>
  __device__ __forceinline__ Pair join(const Pair* from, int64_t stride) const {
    Pair own[4]{};
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k < nodes) own[k] = from[k * stride];
    if (nodes > 1) Combine::join(own[0].first, own[0].second, own[1].first, own[1].second, first);
    if (nodes > 3) Combine::join(own[2].first, own[2].second, own[3].first, own[3].second, second);
    if (nodes > 2) Combine::join(own[0].first, own[0].second, own[2].first, own[2].second, both);
    return own[0];
  }
};

// The nodes of a channel that are in memory after some levels: how many there are, how many values
// each covers, and their stride.
struct TreeLevel {
  int64_t nodes, size, stride;

  __device__ __forceinline__ TreeLevel(const TreePlan& t, int levels)
      : nodes(t.groups.count), size(t.groups.size), stride(t.channels) {
    for (int r = 0; r < levels; ++r) *this = coarser();
  }
  __device__ __forceinline__ TreeLevel coarser() const {
    TreeLevel next = *this;
    next.nodes = (nodes + 3) / 4;
    next.size *= 4;
    next.stride *= 4;
    return next;
  }
  __device__ __forceinline__ FourWayJoin four(int64_t first, int64_t count) const {
    return {nodes - first, size, count - first * size};
  }
};

// One level, by all threads of a channel: combines four nodes in place of the first.
template <class Combine>
__device__ __forceinline__ void join_fours(const TreePlan& t, const TreeLevel& level, Pair* groups,
                                           int row) {
  for (int64_t i = 4 * row; i < level.nodes; i += 4 * t.threads) {
    Pair* const four = groups + i * level.stride;
    *four = level.four(i, t.count).template join<Combine>(four, level.stride);
  }
}

// ---- the constants of a channel ----

struct FinishMoments {
  using Combine = JoinMoments;
  struct Inputs {};
  const BatchMoments& call;

  __device__ __forceinline__ Inputs inputs(int64_t) const { return {}; }
  __device__ __forceinline__ Pair result(int64_t, Inputs, const Pair& m, double) const { return m; }
  __device__ __forceinline__ void put(int64_t c, Inputs, const Pair& m) const {
    call.out.mean[c] = m.first;
    call.out.m2[c] = m.second;
  }
};

template <class F>
struct FinishForward {
  using Combine = JoinMoments;
  using Inputs = ForwardInputs;
  using Rule = Normalize<F>;
  struct ChannelResult {
    Moments m;
    double count;
    Affine affine;
  };
  const BatchNormForward& call;

  __device__ __forceinline__ Inputs inputs(int64_t c) const { return inputs_of(call, c); }
  __device__ __forceinline__ ChannelResult result(int64_t c, const Inputs& in, const Pair& sums,
                                                  double count) const {
    Moments m{sums.first, sums.second};
    if (const Statistics& given = call.given_stats; given.mean) {
      m = {given.mean[c], given.m2[c]};
      count = given.count;
    }
    return {m, count, affine_of(call, in, m, count)};
  }
  __device__ __forceinline__ Rule rule(const Inputs&, const ChannelResult& own) const {
    return normalize_of<F>(own.affine);
  }
  __device__ __forceinline__ void put(int64_t c, const Inputs& in, const ChannelResult& own) const {
    put_results(call, c, in, own.m, own.count, own.affine);
  }
};

template <class F>
struct FinishBackward {
  using Combine = JoinSums;
  using Inputs = BackwardInputs;
  using Rule = NormalizeBackward<F>;
  const BatchNormBackward& call;

  __device__ __forceinline__ Inputs inputs(int64_t c) const { return inputs_of(call, c); }
  __device__ __forceinline__ ChannelSums result(int64_t c, const Inputs& in, const Pair& sums,
                                                double) const {
    return centered<F>(call, in,
                       call.sums_given ? sums_of(call, c) : ChannelSums{sums.first, sums.second});
  }
  __device__ __forceinline__ Rule rule(const Inputs& in, const ChannelSums& own) const {
    return gradient_of<F>(call, in, own);
  }
  __device__ __forceinline__ void put(int64_t c, const Inputs& in, const ChannelSums& own) const {
    put_results(call, c, in, own);
  }
};

// ---- the kernel ----

// If there are sums to combine, the preceding kernel is the one that computed them, and it already
// waited for all earlier work. The per-channel parameters can therefore be loaded before waiting for
// the sums, and the element-wise kernel that follows may start and prefetch its inputs.
template <class Finish, class Call>
__global__ void __launch_bounds__(kThreads, 1)
    finish_all(const TreePlan t, const FASTOPT_GRID_CONSTANT Call call, const RuleArrays rules) {
  t.pairs ? launch_dependents() : grid_dependency_wait();
  __shared__ Pair joined[kThreads];
  __shared__ Weights last[kLevels];
  using Combine = typename Finish::Combine;
  const Finish finish{call};
  const int channels = kThreads / t.threads, row = int(threadIdx.x) / channels;
  const int64_t c = int64_t(blockIdx.x) * channels + threadIdx.x % channels;
  const bool there = c < t.channels;
  // Before the sums are there: the channel's parameters, and the weights of the tree.
  typename Finish::Inputs inputs{};
  if (row == 0 && there) inputs = finish.inputs(c);
  const TreeLevel level(t, t.levels), last_level = level.coarser();
  weigh_last(last, int(last_level.nodes), last_level.size, t.count);
  const FourWayJoin own = level.four(there ? 4 * row : level.nodes, t.count);
  grid_dependency_wait();
  // The tree: levels in global memory, then four nodes per thread, then those of the block.
  Pair* const groups = t.pairs + c;
  for (int r = 0; r < t.levels; ++r, __syncthreads())
    if (there) join_fours<Combine>(t, TreeLevel(t, r), groups, row);
  joined[threadIdx.x] = own.template join<Combine>(groups + 4 * row * level.stride, level.stride);
  join_neighbors<Combine>(joined, channels, int(last_level.nodes), last_level.size, last);
  if (row > 0 || !there) return;
  // One thread per channel finishes it.
  const auto result = finish.result(c, inputs, joined[threadIdx.x], double(t.count));
  if constexpr (requires { typename Finish::Rule; }) rules.put(c, finish.rule(inputs, result));
  finish.put(c, inputs, result);
}

// ---- on the host ----

template <class Finish, class Call>
void queue(const Call& call, Pair* pairs, const RuleArrays& rules) {
  const ChannelSpace& s = call.space;
  if (s.count() == 0) pairs = nullptr;  // no kernel has summed, so none has waited for earlier work
  TreePlan t{pairs, groups_of(s), s.channels, pairs ? s.count() : 0, 0, 1};
  if (!pairs) t.groups.count = 0;
  int64_t rest = t.groups.count;
  for (; rest > 4 * kThreads; rest = ceil_div(rest, 4)) ++t.levels;
  while (4 * t.threads < rest) t.threads *= 2;
  launch(call.place, finish_all<Finish, Call>, ceil_div(s.channels, kThreads / t.threads), kThreads, t,
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
