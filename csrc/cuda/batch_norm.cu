#include "cuda/batch_norm.hpp"

#include "cuda/batch_norm_passes.hpp"
#include "cuda/flat.hpp"

namespace fastopt::cuda {
namespace {

int64_t parts_of(const ChannelSpace& s) { return groups_of(s).count * s.channels; }

// Room for the sums of all groups, if they are wanted, and for a rule's constants.
template <class Rule, class F>
struct Scratch {
  Room room;
  Pair* parts = nullptr;
  RuleArrays<F> rules{};

  Scratch(const Place& place, const ChannelSpace& s, bool sums) {
    Cutter sizes;
    cut(sizes, s, sums);
    room = Room(place, sizes.used(), Keep::call);
    Cutter cutter(room.data());
    cut(cutter, s, sums);
  }

 private:
  void cut(Cutter& cutter, const ChannelSpace& s, bool sums) {
    if (sums) parts = cutter.take<Pair>(parts_of(s));
    rules = RuleArrays<F>::template cut<Rule>(cutter, s.channels);
  }
};

}  // namespace

void batch_moments(const BatchMoments& call) {
  const OnDevice current(call.place);
  const Channels channels(call.space, call.x, int64_t(bytes_of(call.dtype)));
  const Room room(call.place, parts_of(call.space) * int64_t(sizeof(Pair)), Keep::call);
  Pair* const parts = reinterpret_cast<Pair*>(room.data());
  queue_moments(call.place, channels, call.dtype, call.x, parts);
  queue_finish(call, parts);
}

void batch_norm_forward(const BatchNormForward& call) {
  const OnDevice current(call.place);
  const Channels channels(call.space, call.x, int64_t(bytes_of(call.dtype)));
  const bool measures = !call.evaluate && !call.given.mean;
  with_dtype(call.dtype, [&]<class P> {
    using F = Compute<P>;
    const Scratch<Normalize<F>, F> scratch(call.place, call.space, measures);
    if (measures) queue_moments(call.place, channels, call.dtype, call.x, scratch.parts);
    queue_finish(call, scratch.parts, scratch.rules);
    queue_normalize<P>(call, channels, scratch.rules);
  });
}

void batch_norm_backward(const BatchNormBackward& call) {
  const OnDevice current(call.place);
  const Channels channels(call.space, call.x, int64_t(bytes_of(call.dtype)));
  with_dtype(call.dtype, [&]<class P> {
    using F = Compute<P>;
    const Scratch<NormalizeBackward<F>, F> scratch(call.place, call.space, !call.given);
    if (!call.given) queue_backward_sums(call, channels, scratch.parts);
    queue_finish(call, scratch.parts, scratch.rules);
    if (call.dx.data) queue_gradient<P>(call, channels, scratch.rules);
  });
}

}  // namespace fastopt::cuda
