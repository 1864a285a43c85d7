// Sums over rows of few channels. A row of so few channels cannot fill enough vector registers to hide
// latency, because each channel's values must be added sequentially. The four quarters of a block are
// independent, however, so they are summed in parallel: moments of bfloat16 take 0.4x the time (2 to 8
// channels, Zen 4). In an unnamed namespace, for the reason given in tile.hpp.
#pragma once

#include "cpu/channel_sums.hpp"

namespace fastopt::cpu {
namespace {

// Accumulator registers of each sum: enough to hide the latency of an addition, few enough for 16
// registers.
inline constexpr int kAccumulators = 4;
inline constexpr int kMaxFewChannels = kAccumulators * kWide;
inline constexpr int kQuarterRows = kRowBlock / kQuarters;
static_assert(kMaxFewChannels <= kMaxMaskRowBits && kQuarterRows * kMaxFewChannels <= kMaxMaskElements);

// Whether a piece is a whole block of contiguous rows of few channels.
template <class P>
bool is_few(const ChannelPiece& p, const Rows& a) {
  return p.n <= kMaxFewChannels && p.rows == kRowBlock && a.stride == p.n * int64_t(sizeof(P));
}

// Quarters of a block as values, with zeros where ReLU has blocked the value, if there was a ReLU.
// Reading beyond the end of a row is allowed: the next row follows or, after the last one, zeros.
template <class P, bool relu = false>
class FewRows {
  using F = Compute<P>;

 public:
  FewRows(const ChannelPiece& p, const Rows& a) : p_(p), a_(a) {}

  // A single quarter is read in place. Several are copied together, because the hardware does not
  // predict reads in several places.
  void open(int quarter, int count) {
    const int64_t begin = quarter * kQuarterRows, end = begin + count * kQuarterRows;
    behind_ = row_of(a_, end);
    stride_ = count * a_.stride;
    if (!relu && count == 1 && end < kRowBlock && in_place<P>(a_)) {
      values_ = reinterpret_cast<const F*>(row_of(a_, begin));
      return;
    }
    copy_row(row_of(a_, begin), (end - begin) * p_.n, tile_, relu ? unmasked_ : scratch_);
    if constexpr (relu)
      apply_mask_rows(unmasked_, row_of(p_.relu_mask, begin), end - begin, int(p_.n), scratch_);
    memset(scratch_ + (end - begin) * p_.n, 0, kMaxFewChannels * sizeof(F));
    values_ = scratch_;
  }
  const F* row(int i) const { return values_ + i * p_.n; }

  // Prefetches what will be read next, a part of it with each row of a quarter.
  void prefetch_next(int row) const { prefetch(behind_ + row * stride_, stride_); }

 private:
  const ChannelPiece& p_;
  const Rows& a_;
  const F* values_;
  const char* behind_;
  int64_t stride_;
  Tile<P> tile_;
  alignas(64) F scratch_[kQuarterRows * kMaxFewChannels + kMaxFewChannels];
  alignas(64) F unmasked_[relu ? kQuarterRows * kMaxFewChannels : 1];
};

// Sums a block whose rows take `parts` registers of `wide` doubles, so many quarters at a time that
// they use kAccumulators registers. For each row and the channels from c on, add(first, second, c,
// places...) adds the values at each array's place to the two sums.
template <int wide, int parts, class Add, class... Few>
inline FASTOPT_INLINE void sum_few(BlockSums& sums, Add&& add, Few&... arrays) {
  constexpr int together = kAccumulators / parts;
  for (int quarter = 0; quarter < kQuarters; quarter += together) {
    (arrays.open(quarter, together), ...);
    Vector<double, wide> first[together][parts] = {}, second[together][parts] = {};
    for (int row = 0; row < kQuarterRows; ++row) {
      (arrays.prefetch_next(row), ...);
#pragma GCC unroll 4
      for (int q = 0; q < together; ++q)
#pragma GCC unroll 4
        for (int k = 0; k < parts; ++k)
          add.template operator()<wide>(first[q][k], second[q][k], k * wide,
                                        (arrays.row(q * kQuarterRows + row) + k * wide)...);
    }
    for (int q = 0; q < together; ++q)
      for (int c = 0; c < parts * wide; ++c) {
        sums.first_before[c] += first[q][c / wide][c % wide];
        sums.second_before[c] += second[q][c / wide][c % wide];
      }
  }
}

template <class Add, class... Few>
inline FASTOPT_INLINE void take_few(const ChannelPiece& p, Add&& add, Few&... arrays) {
  BlockSums& sums = *p.sums;
  open_block(p, kMaxFewChannels);
  if (p.n <= kNarrow)
    sum_few<kNarrow, 1>(sums, add, arrays...);
  else if (p.n <= kWide)
    sum_few<kWide, 1>(sums, add, arrays...);
  else if (p.n <= 2 * kWide)
    sum_few<kWide, 2>(sums, add, arrays...);
  else if (p.n <= 3 * kWide)
    sum_few<kWide, 3>(sums, add, arrays...);
  else
    sum_few<kWide, 4>(sums, add, arrays...);
}

// ---- sums of a block for which is_few() holds ----

template <class P>
void moments_of_few(const ChannelPiece& p) {
  FewRows<P> rows(p, p.x);
  const auto add = [&]<int wide>(Vector<double, wide>& sum, Vector<double, wide>& square, int c,
                                 const Compute<P>* x) FASTOPT_INLINE {
    add_moment(as_doubles<wide>(vector_at<wide>(x)), vector_at<wide>(p.sums->pivot + c), sum, square);
  };
  take_few(p, add, rows);
}

template <class P, bool relu>
void reduce_few(const ChannelPiece& p, const Compute<P>* mean) {
  using F = Compute<P>;
  FewRows<P> x_rows(p, p.x);
  FewRows<P, relu> dy_rows(p, p.dy);
  const auto add = [&]<int wide>(Vector<double, wide>& sum, Vector<double, wide>& product, int c,
                                 const F* x, const F* dy) FASTOPT_INLINE {
    add_gradient<F>(as_doubles<wide>(vector_at<wide>(dy)),
                    as_doubles<wide>(vector_at<wide>(x) - vector_at<wide>(mean + c)), sum, product);
  };
  take_few(p, add, x_rows, dy_rows);
}

}  // namespace
}  // namespace fastopt::cpu
