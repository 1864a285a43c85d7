#include "cpu/batch_norm.hpp"

#include <cstring>
#include <vector>

#include "cpu/channels.hpp"
#include "cpu/lists.hpp"
#include "cpu/parallel.hpp"
#include "cpu/select.hpp"
#include "rules/batch_norm.hpp"
#include "rules/half.hpp"

namespace fastopt::cpu {
namespace {

// ---- sharing the work ----

int threads_over(const ChannelSpace& s, DType dtype) {
  return threads_for(s.channels * s.count() * int64_t(bytes_of(dtype)));
}

// Whether a result as large as x would be gone from the last-level cache before anyone could read it.
bool outgrows_cache(const ChannelSpace& s, DType dtype) {
  return 2 * s.channels * s.count() * int64_t(bytes_of(dtype)) > last_level_cache();
}

// A thread's share of all channels and blocks, as visit(c0, c1, b0, b1).
template <class Visit>
void each_share(const ChannelSpace& s, int thread, int threads, Visit&& visit) {
  const int64_t blocks = blocks_of(s);
  if (s.rows) {  // by stripes of channels, too: a batch of few rows may have many
    const int64_t stripes = (s.channels + kMostChannels - 1) / kMostChannels;
    const int64_t first = Share::cut(blocks * stripes, thread, threads);
    const int64_t last = Share::cut(blocks * stripes, thread + 1, threads);
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

// A reduction, then what follows from it for a channel, then a pass over the elements. Where channels
// are whole slices of memory and there are enough of them, a thread goes through all three with one
// channel before it takes the next: the slice is still in its cache when it is read again.
template <class Reduce, class Finish, class Apply>
void in_three(const ChannelSpace& s, int threads, Reduce&& reduce, Finish&& finish, Apply&& apply) {
  const int64_t channels = s.channels, blocks = blocks_of(s);
  if (!s.rows && (threads == 1 || channels >= 4 * threads)) {
    on_threads(threads, [&](int thread, int of) {
      const int64_t last = Share::cut(channels, thread + 1, of);
      for (int64_t c = Share::cut(channels, thread, of); c < last; ++c) {
        reduce(c, c + 1, 0, blocks);
        finish(c, c + 1);
        apply(c, c + 1, 0, blocks);
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

// ---- two numbers for each channel and block ----

class Results {
 public:
  explicit Results(const ChannelSpace& s, bool wanted = true)
      : space_(s), numbers_(wanted ? 2 * s.channels * std::max<int64_t>(blocks_of(s), 1) : 0) {}

  Parts parts() {
    const int64_t blocks = blocks_of(space_);
    double* const second = numbers_.data() + numbers_.size() / 2;
    return space_.rows ? Parts{numbers_.data(), second, 1, space_.channels}
                       : Parts{numbers_.data(), second, blocks, 1};
  }

  // Joins the blocks of channels [c0, c1) and puts what they give there.
  template <class How>
  void join(int64_t c0, int64_t c1, double* first, double* second) {
    const Parts p = parts();
    const int64_t size = block_of(space_), count = space_.count();
    for (int64_t c = c0; c < c1; c += space_.rows ? c1 - c0 : 1)
      join_blocks<How>(p.first + c * p.channel_step, p.second + c * p.channel_step, p.block_step,
                       space_.rows ? c1 - c0 : 1, size, count);
    for (int64_t c = c0; c < c1; ++c) {
      first[c] = p.first[c * p.channel_step];
      second[c] = p.second[c * p.channel_step];
    }
  }

 private:
  const ChannelSpace& space_;
  std::vector<double> numbers_;
};

// ---- numbers of a channel in the user's arrays, aligned or not ----

template <class T>
double load(const char* p) {
  T stored;
  memcpy(&stored, p, sizeof(T));
  return double(widen(stored));
}

template <class T>
void store(char* p, double value) {
  const T stored = narrow<T>(Compute<T>(value));
  memcpy(p, &stored, sizeof(T));
}

double get(const ChannelVector& v, int64_t c, double absent = 0.0) {
  constexpr double (*by_dtype[kDTypes])(const char*) = {load<Half>, load<BFloat16>, load<float>,
                                                        load<double>};
  return v.data ? by_dtype[int(v.dtype)](v.data + c * v.stride) : absent;
}

void put(const ChannelVector& v, int64_t c, double value) {
  constexpr void (*by_dtype[kDTypes])(char*, double) = {store<Half>, store<BFloat16>, store<float>,
                                                        store<double>};
  if (v.data) by_dtype[int(v.dtype)](v.data + c * v.stride, value);
}

void track(const Running& r, int64_t c, double mean, double var) {
  put(r.mean, c, follow(get(r.mean, c), mean, r.keep, r.take));
  put(r.var, c, follow(get(r.var, c), var, r.keep, r.take));
}

// A rule's constants for each channel, in the order of its members, already rounded to the type that
// elements are computed in.
template <template <class> class Rule>
class PerChannel {
  static constexpr int count = sizeof(Rule<float>) / sizeof(float);

 public:
  PerChannel(const ChannelSpace& s, DType dtype)
      : wide_(dtype == DType::float64), channels_(s.channels), values_(count * s.channels) {}

  void hand_to(ChannelPiece& piece) const {
    for (int k = 0; k < count; ++k) piece.constants[k] = values_.data() + k * channels_;
  }

  template <class... Args>
  void set(int64_t c, Args... args) {
    wide_ ? spread<double>(c, Rule<double>::of(args...)) : spread<float>(c, Rule<float>::of(args...));
  }
  double get(int k, int64_t c) const { return values_[k * channels_ + c]; }

 private:
  template <class F>
  void spread(int64_t c, const Rule<F>& rule) {
    F own[count];
    memcpy(own, &rule, sizeof(rule));
    for (int k = 0; k < count; ++k) values_[k * channels_ + c] = double(own[k]);
  }

  bool wide_;
  int64_t channels_;
  std::vector<double> values_;
};

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
  in_three(s, threads_over(s, call.dtype), reduce, finish, nothing);
}

void batch_norm_forward(const BatchNormForward& call) {
  const IeeeMode mode;
  const ChannelSpace& s = call.space;
  const bool measures = !call.evaluate && !call.given.mean;
  const double n = measures ? double(s.count()) : call.given.count;
  Results results(s, measures);
  PerChannel<Normalize> constants(s, call.dtype);

  ChannelPass reduce(s, call.dtype, kernels().batch_norm.moments, results.parts());
  reduce.reads(&ChannelPiece::x, call.x);

  // The statistics of a channel, and what elements are computed with.
  const auto settle = [&](int64_t c) {
    if (call.evaluate) {
      call.mean[c] = get(call.running.mean, c);
      call.var[c] = get(call.running.var, c);
    } else {
      const double mean = measures ? call.mean[c] : call.given.mean[c];
      const double m2 = measures ? call.var[c] : call.given.m2[c];
      call.mean[c] = mean;
      call.var[c] = variance(m2, n, false);
      if (n > 0) track(call.running, c, mean, variance(m2, n, call.running.unbiased));
    }
    call.invstd[c] = inverse_std(call.var[c], call.eps);
    call.scale[c] = get(call.gamma, c, 1.0) * call.invstd[c];
    constants.set(c, call.mean[c], call.scale[c], get(call.beta, c));
  };
  const auto finish = [&](int64_t c0, int64_t c1) {
    if (measures) results.join<JoinMoments>(c0, c1, call.mean, call.var);
    for (int64_t c = c0; c < c1; ++c) settle(c);
  };

  ChannelPass apply(s, call.dtype, kernels().batch_norm.normalize, {}, call.kept);
  apply.reads(&ChannelPiece::x, call.x);
  apply.reads(&ChannelPiece::residual, call.residual);
  apply.writes(&ChannelPiece::y, call.y);
  apply.piece.relu = call.relu;
  apply.reversed = measures;
  apply.piece.streams = outgrows_cache(s, call.dtype);
  constants.hand_to(apply.piece);

  const int threads = threads_over(s, call.dtype);
  if (measures)
    in_three(s, threads, reduce, finish, apply);
  else
    in_three(s, threads, nothing, finish, apply);
}

void batch_norm_backward(const BatchNormBackward& call) {
  const IeeeMode mode;
  const ChannelSpace& s = call.space;
  Results results(s, !call.given);
  PerChannel<NormalizeBackward> constants(s, call.dtype);
  const auto settle = [&](int64_t c) {
    constants.set(c, call.mean[c], call.invstd[c], call.scale[c], call.sums.dy[c],
                  call.sums.dy_centred[c], call.count);
  };

  ChannelPass reduce(s, call.dtype, kernels().batch_norm.reduce, results.parts(), call.kept);
  reduce.reads(&ChannelPiece::x, call.x);
  reduce.reads(&ChannelPiece::dy, call.dy);
  constants.hand_to(reduce.piece);
  for (int64_t c = 0; c < s.channels; ++c)
    settle(c);  // for the mean; a reduction has no use for others

  const auto finish = [&](int64_t c0, int64_t c1) {
    if (!call.given) results.join<JoinSums>(c0, c1, call.sums.dy, call.sums.dy_centred);
    for (int64_t c = c0; c < c1; ++c) {
      double& products = call.sums.dy_centred[c];
      if (!call.given)
        products = recentred(products, call.sums.dy[c], constants.get(0, c), call.mean[c]);
      put(call.dgamma, c, products * call.invstd[c]);
      put(call.dbeta, c, call.sums.dy[c]);
      settle(c);
    }
  };

  ChannelPass apply(s, call.dtype, kernels().batch_norm.gradient, {}, call.kept);
  if (call.count > 0) apply.reads(&ChannelPiece::x, call.x);
  apply.reads(&ChannelPiece::dy, call.dy);
  apply.writes(&ChannelPiece::dx, call.dx);
  apply.writes(&ChannelPiece::dresidual, call.dresidual);
  apply.reversed = !call.given;
  apply.piece.streams = outgrows_cache(s, call.dtype);
  constants.hand_to(apply.piece);

  const int threads = threads_over(s, call.dtype);
  if (call.given)
    in_three(s, threads, nothing, finish, apply);
  else if (call.dx.data)
    in_three(s, threads, reduce, finish, apply);
  else
    in_three(s, threads, reduce, finish, nothing);
}

}  // namespace fastopt::cpu
