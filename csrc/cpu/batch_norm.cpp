#include "cpu/batch_norm.hpp"

#include <algorithm>
#include <cstdlib>

#include "cpu/channel_numbers.hpp"
#include "cpu/channels.hpp"
#include "cpu/lists.hpp"
#include "cpu/parallel.hpp"
#include "cpu/select.hpp"
#include "rules/channel.hpp"

namespace fastopt::cpu {
namespace {

// ---- sharing the work ----

int64_t bytes_over(const ChannelSpace& s, DType dtype) {
  return s.channels * s.count() * int64_t(bytes_of(dtype));
}

// A thread's share of all channels and blocks, as visit(c0, c1, b0, b1).
template <class Visit>
void each_share(const ChannelSpace& s, int thread, int threads, Visit&& visit) {
  const int64_t blocks = blocks_of(s);
  if (s.rows) {  // by stripes of channels, too: a batch of few rows may have many
    const int64_t stripes = ceil_div(s.channels, kMostChannels);
    const int64_t first = Share::cut(blocks * stripes, thread, threads);
    const int64_t last = Share::cut(blocks * stripes, thread + 1, threads);
    if (stripes == 1) return visit(0, s.channels, first, last);
    for (int64_t unit = first; unit < last; ++unit) {
      const int64_t c0 = unit % stripes * kMostChannels, b = unit / stripes;
      visit(c0, std::min(c0 + kMostChannels, s.channels), b, b + 1);
    }
  } else {
    const int64_t last = Share::cut(blocks * s.channels, thread + 1, threads);
    for (int64_t unit = Share::cut(blocks * s.channels, thread, threads); unit < last;) {
      const int64_t c = unit / blocks, b0 = unit % blocks;
      const int64_t n = std::min(blocks - b0, last - unit);
      visit(c, c + 1, b0, b0 + n);
      unit += n;
    }
  }
}

// How many channels are taken at a time. Of short planes, what neighboring channels have of a segment
// lies side by side, where one alone would jump from segment to segment and leave each amid a cache
// line. Together, forward of (256, 512, 7, 7) takes 0.54 of the time, of (1024, 512, 2, 2) 0.36,
// evaluation 0.5 and 0.12 (float32, one thread, Zen 4).
int64_t channels_together(const ChannelSpace& s, const ChannelArray& x) {
  const bool side_by_side = s.ndim == 0 || std::abs(x.channel) < std::abs(x.stride[s.ndim - 1]);
  const int64_t n = side_by_side ? std::min(kMostChannels / s.inner, s.channels) : 1;
  return std::max<int64_t>(n, 1);
}

// A reduction, then what follows from it for a channel, then a pass over the elements. Where channels
// are whole slices of memory and there are enough of them, a thread goes through all three with one
// or a few before it takes the next: the slices are still in its cache when they are read again.
template <class Reduce, class Finish, class Apply>
void in_three(const ChannelSpace& s, const ChannelArray& x, int threads, Reduce&& reduce,
              Finish&& finish, Apply&& apply) {
  const int64_t channels = s.channels, blocks = blocks_of(s), together = channels_together(s, x);
  if (!s.rows && (threads == 1 || channels >= 4 * threads)) {
    on_threads(threads, [&](int thread, int of) {
      const int64_t last = Share::cut(channels, thread + 1, of);
      for (int64_t c = Share::cut(channels, thread, of); c < last; c += together) {
        const int64_t end = std::min(c + together, last);
        reduce(c, end, 0, blocks);
        finish(c, end);
        apply(c, end, 0, blocks);
      }
    });
    return;
  }
  on_threads(threads, [&](int thread, int of) { each_share(s, thread, of, reduce); });
  on_threads(threads, [&](int thread, int of) {
    finish(Share::cut(channels, thread, of), Share::cut(channels, thread + 1, of));
  });
  on_threads(threads, [&](int thread, int of) { each_share(s, thread, of, apply); });
}

constexpr auto nothing = [](auto...) {};

}  // namespace

void batch_moments(const BatchMoments& call) {
  const IeeeMode mode;
  const ChannelSpace& s = call.space;
  Results results(s);
  ChannelPass reduce(s, call.dtype, kernels().batch_norm.moments, results.parts());
  reduce.reads(&ChannelPiece::x, call.x);
  const auto finish = [&](int64_t c0, int64_t c1) {
    results.join<JoinMoments>(c0, c1, call.out.mean, call.out.m2);
  };
  in_three(s, call.x, threads_for(bytes_over(s, call.dtype)), reduce, finish, nothing);
}

void batch_norm_forward(const BatchNormForward& call) {
  const IeeeMode mode;
  const ChannelSpace& s = call.space;
  const int64_t bytes = bytes_over(s, call.dtype);
  const bool computes_stats = !call.evaluate && !call.given_stats.mean;
  const double n = computes_stats ? double(s.count()) : call.given_stats.count;
  Results results(s, computes_stats);
  PerChannel<Normalize> constants(s, call.dtype);

  ChannelPass reduce(s, call.dtype, kernels().batch_norm.moments, results.parts());
  reduce.reads(&ChannelPiece::x, call.x);

  const auto finish = [&](int64_t c0, int64_t c1) {
    if (computes_stats) results.join<JoinMoments>(c0, c1, call.mean, call.var);
    for (int64_t c = c0; c < c1; ++c) {
      Moments own{};
      if (computes_stats) own = {call.mean[c], call.var[c]};
      if (call.given_stats.mean) own = {call.given_stats.mean[c], call.given_stats.m2[c]};
      const ForwardInputs in = inputs_of(call, c);
      const Affine affine = affine_of(call, in, own, n);
      constants.set(c, [&]<class F> { return normalize_of<F>(affine); });
      put_results(call, c, in, own, n, affine);
    }
  };

  ChannelPass apply(s, call.dtype, kernels().batch_norm.normalize, {}, call.relu_mask);
  apply.reads(&ChannelPiece::x, call.x);
  apply.reads(&ChannelPiece::residual, call.residual);
  apply.writes(&ChannelPiece::y, call.y);
  apply.piece.relu = call.relu;
  apply.reversed = computes_stats;
  apply.piece.streams = outgrows_cache(bytes * apply.arrays()) && apply.writes_words() &&
                        call.y.data != call.x.data && call.y.data != call.residual.data;
  constants.hand_to(apply.piece);

  const int threads = threads_for(bytes);
  if (computes_stats)
    in_three(s, call.x, threads, reduce, finish, apply);
  else
    in_three(s, call.x, threads, nothing, finish, apply);
}

void batch_norm_backward(const BatchNormBackward& call) {
  const IeeeMode mode;
  const ChannelSpace& s = call.space;
  const int64_t bytes = bytes_over(s, call.dtype);
  Results results(s, !call.sums_given);
  PerChannel<NormalizeBackward> constants(s, call.dtype);
  ChannelPass reduce(s, call.dtype, kernels().batch_norm.reduce, results.parts(), call.relu_mask);
  reduce.reads(&ChannelPiece::x, call.x);
  reduce.reads(&ChannelPiece::dy, call.dy);
  reduce.piece.constants[0] = call.mean;

  const auto finish = [&](int64_t c0, int64_t c1) {
    if (!call.sums_given) results.join<JoinSums>(c0, c1, call.sums.dy, call.sums.dy_centered);
    for (int64_t c = c0; c < c1; ++c) {
      const BackwardInputs in = inputs_of(call, c);
      constants.set(c, [&]<class F> {
        const ChannelSums sums = centered<F>(call, in, sums_of(call, c));
        put_results(call, c, in, sums);
        return gradient_of<F>(call, in, sums);
      });
    }
  };

  ChannelPass apply(s, call.dtype, kernels().batch_norm.gradient, {}, call.relu_mask);
  if (call.count > 0) apply.reads(&ChannelPiece::x, call.x);
  apply.reads(&ChannelPiece::dy, call.dy);
  apply.writes(&ChannelPiece::dx, call.dx);
  apply.writes(&ChannelPiece::dresidual, call.dresidual);
  apply.reversed = !call.sums_given;
  apply.piece.streams = outgrows_cache(bytes * apply.arrays()) && apply.writes_words() &&
                        call.dx.data != call.x.data && call.dx.data != call.dy.data;
  constants.hand_to(apply.piece);

  const int threads = threads_for(bytes);
  if (call.sums_given)
    in_three(s, call.x, threads, nothing, finish, apply);
  else if (call.dx.data)
    in_three(s, call.x, threads, reduce, finish, apply);
  else
    in_three(s, call.x, threads, reduce, finish, nothing);
}

}  // namespace fastopt::cpu
