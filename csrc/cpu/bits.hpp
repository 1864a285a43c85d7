// A bit for each of up to kTile elements, eight to a byte, the first one lowest, made and used in loops
// of their own: beside floats, a byte for each element has AVX-512 take 64 at a time, and those of
// shorter rows one by one (16 channels, backward: five times as long). In an unnamed namespace, as
// tile.hpp says.
#pragma once

#include "cpu/kernels.hpp"
#include "cpu/tile.hpp"

namespace fastopt::cpu {
namespace {

// Bit k alone. Read, for not every vector has a shift of its own for each lane.
struct BitTable {
  alignas(64) uint32_t bit[32];

  constexpr BitTable() : bit() {
    for (int k = 0; k < 32; ++k) bit[k] = uint32_t(1) << k;
  }
};
inline constexpr BitTable kBits;

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
inline __attribute__((always_inline)) void pack_mask(const F* values, int n, char* bits) {
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
inline __attribute__((always_inline)) void apply_mask(const F* values, const char* bits, int n,
                                                      F* out) {
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

// ---- lines: n bits each in whole bytes, one after the other ----

inline constexpr int kMaxMaskElements = 1024;  // elements whose lines are taken at a time
static_assert(kMaxPieceWidth <= kMaxMaskElements);

// Calls visit<bytes>() with what a line has of them.
template <class Visit>
inline __attribute__((always_inline)) void with_row_bytes(int n, Visit&& visit) {
  n <= 8    ? visit.template operator()<1>()
  : n <= 16 ? visit.template operator()<2>()
  : n <= 24 ? visit.template operator()<3>()
            : visit.template operator()<4>();
}

// Three bytes by a copy would be written in parts and read as a whole, for which a CPU waits.
template <int bytes>
inline __attribute__((always_inline)) uint32_t mask_row_at(const char* p) {
  if constexpr (bytes == 3) return mask_row_at<2>(p) | mask_row_at<1>(p + 2) << 16;
  uint32_t line = 0;
  memcpy(&line, p, bytes);
  return line;
}

// Between lines and bits side by side, 32 at a time.
inline void join_mask_rows(const char* line, int64_t lines, int n, char* bits) {
  with_row_bytes(n, [&]<int bytes>() __attribute__((always_inline)) {
    uint64_t waiting = 0;
    for (int have = 0; lines > 0; --lines, line += bytes) {
      waiting |= uint64_t(mask_row_at<bytes>(line)) << have;
      have += n;
      if (have < 32) continue;
      memcpy(bits, &waiting, 4);
      bits += 4, waiting >>= 32, have -= 32;
    }
    memcpy(bits, &waiting, 4);
  });
}

inline void split_mask_rows(const char* bits, int64_t lines, int n, char* line) {
  with_row_bytes(n, [&]<int bytes>() __attribute__((always_inline)) {
    const auto all = uint32_t((uint64_t(1) << n) - 1);
    uint64_t waiting = 0;
    for (int have = 0; lines > 0; --lines, line += bytes) {
      if (have < n) {
        uint32_t next;
        memcpy(&next, bits, 4);
        waiting |= uint64_t(next) << have;
        bits += 4, have += 32;
      }
      const uint32_t own = uint32_t(waiting) & all;
      memcpy(line, &own, bytes);
      waiting >>= n, have -= n;
    }
  });
}

// pack() and mask() for lines of n values each, which follow each other.
template <class F>
void pack_mask_rows(const F* values, int64_t lines, int n, char* line) {
  char bits[kMaxMaskElements / 8 + 4] = {};
  pack_mask(values, int(lines) * n, bits);
  split_mask_rows(bits, lines, n, line);
}

template <class F>
void apply_mask_rows(const F* values, const char* line, int64_t lines, int n, F* out) {
  if (n % 8 == 0) return apply_mask(values, line, int(lines) * n, out);
  char bits[kMaxMaskElements / 8 + 4];
  join_mask_rows(line, lines, n, bits);
  apply_mask(values, bits, int(lines) * n, out);
}

}  // namespace
}  // namespace fastopt::cpu
