// The loops of dropout, for one instruction set; tile.hpp explains the unnamed namespace. Arrays are
// processed tile by tile: first the random words of a tile are drawn, then one loop uses them.
#include "cpu/kernels.hpp"
#include "cpu/philox_simd.hpp"
#include "cpu/tile.hpp"
#include "rules/divide.hpp"

namespace fastopt::cpu {
namespace {

// ---- random words ----

// The random words of consecutive elements. An element is kept if its word is not below `limit`. If all
// elements are kept, or all dropped, the words are 0 and none is drawn.
class RandomWords {
 public:
  RandomWords(const DropoutMask& mask, uint64_t threshold)
      : limit(uint32_t(threshold == kDropAll ? threshold - 1 : threshold)),
        mask_(mask),
        philox_(mask.seed, mask.offset),
        random_(threshold != kDropNone && threshold != kDropAll) {
    if (!random_) memset(words_, 0, sizeof(words_));
  }

  const uint32_t limit;

  const uint32_t* open(int64_t begin, int n) {
    if (!random_) return words_;
    if (mask_.channels > 0) return spread(begin, n);
    return draw(uint64_t(mask_.start) + uint64_t(begin), n);
  }

  // The number of elements before the first one whose word starts a group.
  int64_t head(int64_t begin) const { return mask_.channels > 0 ? 0 : (-(mask_.start + begin)) & 3; }

 private:
  const uint32_t* draw(uint64_t index, int n) {
    const int lead = int(index & 3);
    for (int done = 0; done < lead + n; done += kBlockWords)
      philox_.block((index >> 2) + uint64_t(done / 4), words_ + done);
    return words_ + lead;
  }

  // The words of a sample's channels. If there are few channels, all words are drawn at once, for the
  // following tiles as well.
  const uint32_t* draw_channels(int64_t sample, int64_t channel, int n) {
    const uint64_t first = uint64_t(mask_.start + sample * mask_.channels);
    if (mask_.channels > kTile) return draw(first + uint64_t(channel), n);
    if (sample != sample_) {
      sample_ = sample;
      row_ = draw(first, int(mask_.channels));
    }
    return row_ + channel;
  }

  // Repeats a channel's word for each of its elements.
  const uint32_t* spread(int64_t begin, int n) {
    const int64_t channels = mask_.channels, inner = mask_.inner;
    for (int done = 0; done < n;) {
      const int64_t run = (begin + done) / inner, channel = run % channels;
      const int64_t sample = run / channels / mask_.repeats;
      int64_t skip = (begin + done) % inner;  // elements of the channel before this one
      const int64_t runs = min64(ceil_div(skip + (n - done), inner), channels - channel);
      const uint32_t* word = draw_channels(sample, channel, int(runs));
      if (inner == 1) {
        memcpy(spread_ + done, word, runs * sizeof(uint32_t));
        done += int(runs);
        continue;
      }
      for (const uint32_t* end = word + runs; word < end; ++word, skip = 0)
        for (const int stop = int(min64(n, done + inner - skip)); done < stop; ++done)
          spread_[done] = *word;
    }
    return spread_;
  }

  const DropoutMask& mask_;
  const Philox philox_;
  const bool random_;
  int64_t sample_ = -1;  // whose words row_ points to
  const uint32_t* row_ = nullptr;
  static_assert(kTile % kBlockWords == 0);  // so words_ holds a tile and the start of its first group
  alignas(64) uint32_t words_[kTile + kBlockWords];
  alignas(64) uint32_t spread_[kTile];
};

// ---- the bias ----

// Adds the bias to a tile, in F.
template <class F, class B>
class Columns {
 public:
  const F* add(const F* x, const DropoutCall& call, int64_t begin, int n) {
    const int64_t columns = call.columns, first = begin % columns;
    const int period = int(min64(n, columns)), before = int(min64(period, columns - first));
    fill(call.bias, first, before, values_);
    fill(call.bias, 0, period - before, values_ + before);
    for (int j = period; j < n; ++j) values_[j] = values_[j - period];
#pragma omp simd
    for (int j = 0; j < n; ++j) values_[j] = x[j] + values_[j];
    return values_;
  }

 private:
  void fill(const Source& bias, int64_t first, int n, F* out) {
    const Compute<B>* from = tile_.open(bias, first, n);
    for (int j = 0; j < n; ++j) out[j] = F(from[j]);
  }

  Tile<B> tile_;
  alignas(64) F values_[kTile];
};

// ---- dropout ----

template <class F>
inline FASTOPT_INLINE void apply(const Dropout<F> rule, const F* x, const F* residual,
                                 const uint32_t* words, uint32_t limit, F* y, int n) {
  if (residual) {
#pragma GCC ivdep
    for (int j = 0; j < n; ++j) y[j] = residual[j] + rule(x[j], words[j] >= limit);
  } else {
#pragma GCC ivdep
    for (int j = 0; j < n; ++j) y[j] = rule(x[j], words[j] >= limit);
  }
}

template <class P, class B>
void apply_range(const DropoutCall& call, const DropoutConstants& constants, int64_t begin, int64_t end,
                 bool nontemporal) {
  using F = Compute<P>;
  const Dropout<F> rule(constants);
  RandomWords words(call.mask, constants.threshold);
  Columns<F, B> columns;
  Tile<P> xs, residuals, outs;
  const auto visit = [&](int64_t i, int n) FASTOPT_INLINE {
    if (nontemporal) prefetch_ahead<P>(call.x.data, i, n);
    const F* x = xs.open(call.x, i, n);
    const F* residual = call.residual.data ? residuals.open(call.residual, i, n) : nullptr;
    F* y = outs.place(call.out, i, nontemporal);
    if (call.bias.data) x = columns.add(x, call, i, n);
    apply(rule, x, residual, words.open(i, n), words.limit, y, n);
    outs.close(y, call.out, i, n, nontemporal);
  };
  const int64_t body = min64(end, begin + words.head(begin));
  each_tile<uint32_t>(begin, body, visit);  // of random words
  each_tile<uint32_t>(body, end, visit);
  if (nontemporal) nontemporal_fence();
}

template <class P>
void dropout(const DropoutCall& call, const DropoutConstants& constants, int64_t begin, int64_t end,
             bool nontemporal) {
  if (call.bias_dtype == DType::float32)
    return apply_range<P, float>(call, constants, begin, end, nontemporal);
  apply_range<P, P>(call, constants, begin, end, nontemporal);
}

void mask(const DropoutMask& mask, uint64_t threshold, int64_t begin, int64_t end, bool* keep) {
  RandomWords words(mask, threshold);
  each_tile<uint32_t>(begin, end, [&](int64_t i, int n) FASTOPT_INLINE {
    const uint32_t* word = words.open(i, n);
#pragma omp simd
    for (int j = 0; j < n; ++j) keep[i + j] = word[j] >= words.limit;
  });
}

}  // namespace

constexpr DropoutKernels FASTOPT_TABLE(dropout_, FASTOPT_ISA) = {
    {{dropout<Half>}, {dropout<BFloat16>}, {dropout<float>}, {dropout<double>}}, mask};

}  // namespace fastopt::cpu
