// Which elements dropout keeps. A thread draws the words of its elements in registers: one group of
// four words for four adjacent elements if these begin a group, otherwise one element at a time.
#pragma once

#include "cuda/dropout.hpp"
#include "cuda/launch.hpp"
#include "rules/divide.hpp"
#include "rules/dropout.hpp"
#include "rules/philox.hpp"

namespace fastopt::cuda {
namespace {

struct Task {
  DropoutCall call;
  uint64_t threshold;
  uint32_t key[kPhiloxRounds][2];
  uint64_t inv_columns, inv_channels, inv_repeats, inv_inner;
  bool random;     // whether random words decide
  bool in_groups;  // the first element of every span begins a group of words
  bool vectors;    // x, residual and the result can be moved as vectors
};

__device__ __forceinline__ void draw(const Task& t, int64_t group, uint32_t (&out)[4]) {
  const uint64_t offset = t.call.mask.offset;
  uint64_t word[4] = {offset, offset >> 32, uint64_t(group), uint64_t(group) >> 32};
  philox(word, t.key);
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = uint32_t(word[i]);
}

// The indices that select the words of consecutive elements: an element's own index or, if whole
// channels are dropped, that of its channel.
class Indices {
 public:
  __device__ __forceinline__ Indices(const Task& t, int64_t i) : mask_(t.call.mask), own_(i) {
    if (mask_.channels == 0) return;
    const DivMod run = divide(i, mask_.inner, t.inv_inner);
    const DivMod channel = divide(run.quotient, mask_.channels, t.inv_channels);
    const DivMod sample = divide(channel.quotient, mask_.repeats, t.inv_repeats);
    own_ = sample.quotient * mask_.channels + channel.remainder;
    channel_ = channel.remainder;
    repeat_ = sample.remainder;
    inner_ = run.remainder;
  }
  __device__ __forceinline__ int64_t index() const { return mask_.start + own_; }

  __device__ __forceinline__ void next() {
    if (mask_.channels > 0 && ++inner_ < mask_.inner) return;
    inner_ = 0;
    ++own_;
    if (mask_.channels == 0 || ++channel_ < mask_.channels) return;
    channel_ = 0;  // the same channels once more, unless the sample ends here
    if (++repeat_ < mask_.repeats)
      own_ -= mask_.channels;
    else
      repeat_ = 0;
  }

 private:
  const DropoutMask& mask_;
  int64_t own_, channel_ = 0, repeat_ = 0, inner_ = 0;
};

// The words of `count` elements, the first of which begins a group.
template <int count>
struct Words {
  uint32_t limit, word[count];

  __device__ __forceinline__ bool keeps(int k) const { return word[k] >= limit; }
};

template <int count>
__device__ __forceinline__ Words<count> words_from(const Task& t, int64_t i) {
  Words<count> words{uint32_t(t.threshold)};
#pragma unroll
  for (int k = 0; k < count; k += 4) {
    uint32_t four[4];
    draw(t, ((t.call.mask.start + i) >> 2) + k / 4, four);
#pragma unroll
    for (int j = 0; j < 4 && k + j < count; ++j) words.word[k + j] = four[j];
  }
  return words;
}

// One bit per element.
struct Bits {
  unsigned bits;

  __device__ __forceinline__ bool keeps(int k) const { return bits >> k & 1; }
};

// The bits of `count` elements from i on, whatever their alignment to groups.
template <int count>
__device__ __forceinline__ Bits bits_from(const Task& t, int64_t i) {
  if (!t.random) return {t.threshold == kDropNone ? ~0u : 0u};
  Bits keep{0};
  if (t.in_groups) {
    const auto words = words_from<count>(t, i);
#pragma unroll
    for (int k = 0; k < count; ++k) keep.bits |= unsigned(words.keeps(k)) << k;
    return keep;
  }
  Indices at(t, i);
  int64_t drawn = -1;
  uint32_t word[4];
#pragma unroll 1
  for (int k = 0; k < count; ++k, at.next()) {
    const int64_t index = at.index();
    if (index >> 2 != drawn) draw(t, drawn = index >> 2, word);
    const uint32_t low = index & 1 ? word[1] : word[0], high = index & 1 ? word[3] : word[2];
    keep.bits |= unsigned((index & 2 ? high : low) >= uint32_t(t.threshold)) << k;
  }
  return keep;
}

// In a plain task (dropout.cu) words are compared where they are used, without storing bits.
template <bool plain, int count>
__device__ __forceinline__ auto kept_from(const Task& t, int64_t i) {
  if constexpr (plain)
    return words_from<count>(t, i);
  else
    return bits_from<count>(t, i);
}

}  // namespace
}  // namespace fastopt::cuda
