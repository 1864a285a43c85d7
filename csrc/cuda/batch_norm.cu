#include "cuda/batch_norm.hpp"

#include "cuda/batch_norm_launches.hpp"

namespace fastopt::cuda {
namespace {

Channels channels_of(const ChannelSpace& space, const ChannelArray& x, DType dtype) {
  return Channels(space, x, int64_t(bytes_of(dtype)));
}

// Scratch for the sums of all groups, if they are needed, and for the constants of a rule.
struct Scratch {
  DeviceBuffer buffer;
  Pair* pairs = nullptr;
  RuleArrays rules{};

  Scratch(const Place& place, const ChannelSpace& s, bool sums, int members) {
    buffer = carve(place, Lifetime::call, [&](Arena& arena) {
      if (sums) pairs = arena.allocate<Pair>(groups_of(s).count * s.channels);
      for (int k = 0; k < members; ++k) rules.of[k] = arena.allocate<double>(s.channels);
    });
  }
};

// Queues what follows the sums.
template <class Call, class... Arrays>
void queue_rest(const Call& call, const Channels& s, const Scratch& scratch, const Arrays&... arrays) {
  queue_finish(call, scratch.pairs, scratch.rules);
  all_flat(s, call.dtype, arrays...) ? queue_flat(call, s, scratch.rules)
                                     : queue_strided(call, s, scratch.rules);
}

}  // namespace

void batch_moments(const BatchMoments& call) {
  const DeviceGuard current(call.place);
  const Channels s = channels_of(call.space, call.x, call.dtype);
  const Scratch scratch(call.place, call.space, true, 0);
  queue_moments(call.place, s, call.dtype, call.x, scratch.pairs);
  queue_finish(call, scratch.pairs);
}

void batch_norm_forward(const BatchNormForward& call) {
  const DeviceGuard current(call.place);
  const Channels s = channels_of(call.space, call.x, call.dtype);
  if (queue_smem(call, s)) return;
  const bool computes_stats = !call.evaluate && !call.given_stats.mean;
  const Scratch scratch(call.place, call.space, computes_stats, RuleArrays::members<Normalize<double>>);
  if (computes_stats) queue_moments(call.place, s, call.dtype, call.x, scratch.pairs);
  queue_rest(call, s, scratch, call.x, call.residual, call.y);
}

void batch_norm_backward(const BatchNormBackward& call) {
  const DeviceGuard current(call.place);
  const Channels s = channels_of(call.space, call.x, call.dtype);
  if (queue_smem(call, s)) return;
  constexpr int members = RuleArrays::members<NormalizeBackward<double>>;
  const Scratch scratch(call.place, call.space, !call.sums_given, members);
  if (!call.sums_given) queue_backward_sums(call, s, scratch.pairs);
  if (!call.dx.data) return queue_finish(call, scratch.pairs, scratch.rules);
  BatchNormBackward rest = call;
  // the statistics are constants, so x is not read again
  if (rest.count == 0.0) rest.x.data = nullptr;
  queue_rest(rest, s, scratch, rest.x, rest.dy, rest.dx, rest.dresidual);
}

}  // namespace fastopt::cuda
