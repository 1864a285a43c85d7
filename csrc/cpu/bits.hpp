// A bit for each of up to kTile elements, eight to a byte, the first one lowest, made and used in loops
// of their own: beside floats, a byte for each element has AVX-512 take 64 at a time, and those of
// shorter rows one by one (16 channels, backward: five times as long). In an unnamed namespace, as
// tile.hpp says.
#pragma once

#include "cpu/tile.hpp"

namespace fastopt::cpu {
namespace {

// Bit k alone. Read, for not every vector has a shift of its own for each lane.
struct Bits {
  alignas(64) uint32_t bit[32];

  constexpr Bits() : bit() {
    for (int k = 0; k < 32; ++k) bit[k] = uint32_t(1) << k;
  }
};
inline constexpr Bits kBits;

// Calls visit(i, word, all): Word holds the bits of elements i and on, 32 of them or 8; of the last 8,
// some may be behind the end.
template <class Visit>
inline __attribute__((always_inline)) void each_word(int n, Visit&& visit) {
  int i = 0;
  for (; i + 32 <= n; i += 32) visit(i, uint32_t{}, std::true_type{});
  for (; i + 8 <= n; i += 8) visit(i, uint8_t{}, std::true_type{});
  if (i < n) visit(i, uint8_t{}, std::false_type{});
}

// Which values are above zero; none is behind the end.
template <class F>
inline __attribute__((always_inline)) void pack(const F* values, int n, char* bits) {
  each_word(n, [=]<class Word>(int i, Word word, auto all) __attribute__((always_inline)) {
    uint32_t set = 0;
#pragma omp simd reduction(| : set)
    for (int k = 0; k < int(8 * sizeof(Word)); ++k) {
      const F value = all || i + k < n ? values[i + k] : F(0);
      set |= value > F(0) ? kBits.bit[k] : 0;
    }
    word = Word(set);
    memcpy(bits + i / 8, &word, sizeof(Word));
  });
}

// The values whose bit is set, and zeros for the others; as many as the bytes have bits.
static_assert(kTile % 8 == 0);
template <class F>
inline __attribute__((always_inline)) void mask(const F* values, const char* bits, int n, F* out) {
  each_word(n, [=]<class Word>(int i, Word word, auto all) __attribute__((always_inline)) {
    memcpy(&word, bits + i / 8, sizeof(Word));
    const uint32_t set = word;
#pragma omp simd
    for (int k = 0; k < int(8 * sizeof(Word)); ++k) {
      const F value = all || i + k < n ? values[i + k] : F(0);
      out[i + k] = set & kBits.bit[k] ? value : F(0);
    }
  });
}

// The same of `lines` lines of n values each. A line's bits are whole bytes, `step` of them apart; what
// mask() writes beyond it, the next line's values replace.
template <class F>
inline void pack_lines(const F* values, int64_t lines, int n, char* bits, int64_t step) {
  for (int64_t line = 0; line < lines; ++line) pack(values + line * n, n, bits + line * step);
}
template <class F>
inline void mask_lines(const F* values, const char* bits, int64_t step, int64_t lines, int n, F* out) {
  for (int64_t line = 0; line < lines; ++line)
    mask(values + line * n, bits + line * step, n, out + line * n);
}

}  // namespace
}  // namespace fastopt::cpu
