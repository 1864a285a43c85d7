// ReLU masks: one bit for each of up to kMaxTile elements, eight to a byte, the first one lowest. They
// are packed and unpacked in separate loops: mixing bytes and floats in one loop makes the compiler
// vectorize by 64 elements for AVX-512 and handle shorter rows one element at a time (16 channels,
// backward: five times as long). In an unnamed namespace, for the reason given in tile.hpp.
#pragma once

#include "cpu/kernels.hpp"
#include "cpu/tile.hpp"

namespace fastopt::cpu {
namespace {

// Element k has bit k set. A table, because not every instruction set can shift each lane by its own
// count.
struct BitTable {
  alignas(64) uint32_t bit[32];

  constexpr BitTable() : bit() {
    for (int k = 0; k < 32; ++k) bit[k] = uint32_t(1) << k;
  }
};
inline constexpr BitTable kBits;

// Calls visit(i, word, all) for each word of the mask: a Word holds the bits of 32 or 8 elements from i
// on. `all` is false if some of the last 8 are beyond the end.
template <class Visit>
inline FASTOPT_INLINE void each_word(int n, Visit&& visit) {
  int i = 0;
  for (; i + 32 <= n; i += 32) visit(i, uint32_t{}, std::true_type{});
  for (; i + 8 <= n; i += 8) visit(i, uint8_t{}, std::true_type{});
  if (i < n) visit(i, uint8_t{}, std::false_type{});
}

// Stores which values are above zero; bits beyond the end are 0.
template <class F>
inline FASTOPT_INLINE void pack_mask(const F* values, int n, char* bits) {
  each_word(n, [=]<class Word>(int i, Word word, auto all) FASTOPT_INLINE {
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

// Copies the values whose bit is set and writes zeros for the others, for all bits of the last byte.
static_assert(kTile % 8 == 0);
template <class F>
inline FASTOPT_INLINE void apply_mask(const F* values, const char* bits, int n, F* out) {
  each_word(n, [=]<class Word>(int i, Word word, auto all) FASTOPT_INLINE {
    memcpy(&word, bits + i / 8, sizeof(Word));
    const uint32_t set = word;
#pragma omp simd
    for (int k = 0; k < int(8 * sizeof(Word)); ++k) {
      const F value = all || i + k < n ? values[i + k] : F(0);
      out[i + k] = set & kBits.bit[k] ? value : F(0);
    }
  });
}

// ---- rows of a mask: n bits each, padded to whole bytes, one after the other ----

inline constexpr int kMaxMaskElements = 1024;  // whose mask rows are repacked at a time
static_assert(kMaxPieceWidth <= kMaxMaskElements);

// Calls visit<bytes>() with the number of bytes in a mask row of n bits.
template <class Visit>
inline FASTOPT_INLINE void with_row_bytes(int n, Visit&& visit) {
  if (n <= 8)
    visit.template operator()<1>();
  else if (n <= 16)
    visit.template operator()<2>();
  else if (n <= 24)
    visit.template operator()<3>();
  else
    visit.template operator()<4>();
}

// A copy of three bytes would be stored in parts and loaded as a whole, which stalls store forwarding.
template <int bytes>
inline FASTOPT_INLINE uint32_t mask_row_at(const char* p) {
  if constexpr (bytes == 3) return mask_row_at<2>(p) | mask_row_at<1>(p + 2) << 16;
  uint32_t row = 0;
  memcpy(&row, p, bytes);
  return row;
}

// Convert between mask rows and contiguous bits, 32 at a time.
inline void join_mask_rows(const char* row, int64_t rows, int n, char* bits) {
  with_row_bytes(n, [&]<int bytes>() FASTOPT_INLINE {
    uint64_t waiting = 0;
    for (int have = 0; rows > 0; --rows, row += bytes) {
      waiting |= uint64_t(mask_row_at<bytes>(row)) << have;
      have += n;
      if (have < 32) continue;
      memcpy(bits, &waiting, 4);
      bits += 4, waiting >>= 32, have -= 32;
    }
    memcpy(bits, &waiting, 4);
  });
}

inline void split_mask_rows(const char* bits, int64_t rows, int n, char* row) {
  with_row_bytes(n, [&]<int bytes>() FASTOPT_INLINE {
    const auto all = uint32_t((uint64_t(1) << n) - 1);
    uint64_t waiting = 0;
    for (int have = 0; rows > 0; --rows, row += bytes) {
      if (have < n) {
        uint32_t next;
        memcpy(&next, bits, 4);
        waiting |= uint64_t(next) << have;
        bits += 4, have += 32;
      }
      const uint32_t first = uint32_t(waiting) & all;
      memcpy(row, &first, bytes);
      waiting >>= n, have -= n;
    }
  });
}

// pack_mask() and apply_mask() for consecutive rows of n values each.
template <class F>
void pack_mask_rows(const F* values, int64_t rows, int n, char* row) {
  char bits[kMaxMaskElements / 8 + 4] = {};
  pack_mask(values, int(rows) * n, bits);
  split_mask_rows(bits, rows, n, row);
}

template <class F>
void apply_mask_rows(const F* values, const char* row, int64_t rows, int n, F* out) {
  if (n % 8 == 0) return apply_mask(values, row, int(rows) * n, out);
  char bits[kMaxMaskElements / 8 + 4];
  join_mask_rows(row, rows, n, bits);
  apply_mask(values, bits, int(rows) * n, out);
}

}  // namespace
}  // namespace fastopt::cpu
