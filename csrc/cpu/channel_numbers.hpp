// Numbers that belong to a channel: what its blocks sum to, and what its elements are computed with.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/channels.hpp"
#include "rules/channel.hpp"

namespace fastopt::cpu {

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
  template <class Combine>
  void join(int64_t c0, int64_t c1, double* first, double* second) {
    const Parts p = parts();
    const int64_t size = block_of(space_), count = space_.count();
    for (int64_t c = c0; c < c1; c += space_.rows ? c1 - c0 : 1)
      join_blocks<Combine>(p.first + c * p.channel_step, p.second + c * p.channel_step, p.block_step,
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

// A rule's constants for each channel, in the order of its members, already rounded to the type that
// elements are computed in; as often as rows are taken together.
template <template <class> class Rule>
class PerChannel {
  static constexpr int count = sizeof(Rule<float>) / sizeof(float);

 public:
  PerChannel(const ChannelSpace& s, DType dtype)
      : wide_(dtype == DType::float64),
        channels_(s.channels),
        copies_(rows_together(s)),
        values_(count * copies_ * channels_) {}

  void hand_to(ChannelPiece& piece) const {
    for (int k = 0; k < count; ++k) piece.constants[k] = values_.data() + k * copies_ * channels_;
  }

  // of<F>() makes the rule.
  template <class Of>
  void set(int64_t c, Of&& of) {
    wide_ ? spread<double>(c, of.template operator()<double>())
          : spread<float>(c, of.template operator()<float>());
  }

 private:
  template <class F>
  void spread(int64_t c, const Rule<F>& rule) {
    F own[count];
    memcpy(own, &rule, sizeof(rule));
    const int64_t all = copies_ * channels_;
    for (int64_t at = c; at < all; at += channels_)
      for (int k = 0; k < count; ++k) values_[k * all + at] = double(own[k]);
  }

  bool wide_;
  int64_t channels_, copies_;
  std::vector<double> values_;
};

}  // namespace fastopt::cpu
