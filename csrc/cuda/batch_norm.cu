#include "cuda/batch_norm.hpp"

#include "cuda/batch_norm_passes.hpp"

namespace fastopt::cuda {
namespace {

Channels channels_of(const ChannelSpace& space, const ChannelArray& x, DType dtype) {
  return Channels(space, x, int64_t(bytes_of(dtype)));
}

// Room for the sums of all groups, if they are wanted, and for the constants of a rule.
struct Scratch {
  Room room;
  Pair* parts = nullptr;
  RuleArrays rules{};

  Scratch(const Place& place, const ChannelSpace& s, bool sums, int members) {
    const auto cut = [&](Cutter cutter) {
      if (sums) parts = cutter.take<Pair>(groups_of(s).count * s.channels);
      for (int k = 0; k < members; ++k) rules.of[k] = cutter.take<double>(s.channels);
      return cutter.used();
    };
    room = Room(place, cut(Cutter()), Keep::call);
    cut(Cutter(room.data()));
  }
};

template <class Call, class... Arrays>
void queue_elements(const Call& call, const Channels& s, const RuleArrays& rules,
                    const Arrays&... arrays) {
  const int64_t itemsize = int64_t(bytes_of(call.dtype));
  if ((... && (!arrays.data || s.flat(arrays, itemsize))))
    queue_flat(call, s, rules);
  else
    queue_each(call, s, rules);
}

}  // namespace

void batch_moments(const BatchMoments& call) {
  const OnDevice current(call.place);
  const Channels s = channels_of(call.space, call.x, call.dtype);
  const Scratch scratch(call.place, call.space, true, 0);
  queue_moments(call.place, s, call.dtype, call.x, scratch.parts);
  queue_finish(call, scratch.parts);
}

void batch_norm_forward(const BatchNormForward& call) {
  const OnDevice current(call.place);
  const Channels s = channels_of(call.space, call.x, call.dtype);
  const bool measures = !call.evaluate && !call.given.mean;
  const Scratch scratch(call.place, call.space, measures, 3);
  if (measures) queue_moments(call.place, s, call.dtype, call.x, scratch.parts);
  queue_finish(call, scratch.parts, scratch.rules);
  queue_elements(call, s, scratch.rules, call.x, call.residual, call.y);
}

void batch_norm_backward(const BatchNormBackward& call) {
  const OnDevice current(call.place);
  const Channels s = channels_of(call.space, call.x, call.dtype);
  const Scratch scratch(call.place, call.space, !call.given, 4);
  if (!call.given) queue_backward_sums(call, s, scratch.parts);
  queue_finish(call, scratch.parts, scratch.rules);
  if (call.dx.data) queue_elements(call, s, scratch.rules, call.x, call.dy, call.dx, call.dresidual);
}

}  // namespace fastopt::cuda
