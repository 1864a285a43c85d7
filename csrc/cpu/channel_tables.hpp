// Tables by channel: the partial results of its blocks, and the constants its elements are computed
// with.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/channels.hpp"
#include "rules/channel.hpp"

namespace fastopt::cpu {

// Two numbers for each channel and block.
class BlockPartials {
 public:
  explicit BlockPartials(const ChannelSpace& s, bool wanted = true)
      : space_(s), values_(wanted ? 2 * s.channels * std::max<int64_t>(blocks_of(s), 1) : 0) {}

  PartialsView view() {
    const int64_t blocks = blocks_of(space_);
    double* const second = values_.data() + values_.size() / 2;
    return space_.rows ? PartialsView{values_.data(), second, 1, space_.channels}
                       : PartialsView{values_.data(), second, blocks, 1};
  }

  // Combines the blocks of channels [c0, c1) and stores the results in first and second.
  template <class Combine>
  void join(int64_t c0, int64_t c1, double* first, double* second) {
    const PartialsView p = view();
    const int64_t size = block_of(space_), count = space_.count();
    for (int64_t c = c0; c < c1; c += space_.rows ? c1 - c0 : 1)
      join_blocks<Combine>(p.first + c * p.channel_stride, p.second + c * p.channel_stride,
                           p.block_stride, space_.rows ? c1 - c0 : 1, size, count);
    for (int64_t c = c0; c < c1; ++c) {
      first[c] = p.first[c * p.channel_stride];
      second[c] = p.second[c * p.channel_stride];
    }
  }

 private:
  const ChannelSpace& space_;
  std::vector<double> values_;
};

// The constants of a rule for each channel, in the order of its members, already rounded to the type
// that elements are computed in. They are repeated for each row of a batch (rows_per_batch).
template <template <class> class Rule>
class ChannelTable {
  static constexpr int count = sizeof(Rule<float>) / sizeof(float);

 public:
  ChannelTable(const ChannelSpace& s, DType dtype)
      : is_double_(dtype == DType::float64),
        channels_(s.channels),
        copies_(rows_per_batch(s)),
        values_(count * copies_ * channels_) {}

  void bind_to(ChannelPiece& piece) const {
    for (int k = 0; k < count; ++k) piece.constants[k] = values_.data() + k * copies_ * channels_;
  }

  // of<F>() returns the rule.
  template <class Of>
  void set(int64_t c, Of&& of) {
    if (is_double_)
      repeat<double>(c, of.template operator()<double>());
    else
      repeat<float>(c, of.template operator()<float>());
  }

 private:
  template <class F>
  void repeat(int64_t c, const Rule<F>& rule) {
    F members[count];
    memcpy(members, &rule, sizeof(rule));
    const int64_t all = copies_ * channels_;
    for (int64_t at = c; at < all; at += channels_)
      for (int k = 0; k < count; ++k) values_[k * all + at] = double(members[k]);
  }

  bool is_double_;
  int64_t channels_, copies_;
  std::vector<double> values_;
};

}  // namespace fastopt::cpu
