// Non-temporal stores, which bypass the caches: a line need not be read before it is overwritten, and
// the inputs stay cached. In an unnamed namespace, for the reason given in tile.hpp.
#pragma once

#include <string.h>

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastopt::cpu {
namespace {

// Bytes that one such store writes. A cache line of which only a part is written this way costs several
// times as much as a whole one: BatchNorm of (32, 64, 57, 57) in float32 takes 3.8 times as long if the
// ends of tiles are stored normally (Zen 4).
inline constexpr int64_t kWord = 4;

#if defined(__x86_64__)
inline void store_word_nontemporal(char* to, const char* from) {
  int word;
  memcpy(&word, from, kWord);
  _mm_stream_si32(reinterpret_cast<int*>(to), word);
}
#endif

inline bool consists_of_words(const void* p, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % kWord == 0 && bytes % kWord == 0;
}

inline void store_nontemporal(char* to, const char* from, int64_t bytes) {
#if defined(__x86_64__)
  if (consists_of_words(to, bytes)) {
    int64_t i = 0;
    for (; i < bytes && reinterpret_cast<uintptr_t>(to + i) % sizeof(__m128i); i += kWord)
      store_word_nontemporal(to + i, from + i);
    for (; i + int64_t(sizeof(__m128i)) <= bytes; i += sizeof(__m128i))
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    for (; i < bytes; i += kWord) store_word_nontemporal(to + i, from + i);
    return;
  }
#endif
  memcpy(to, from, bytes);
}

// Makes the non-temporal stores of this thread visible before its later stores.
inline void nontemporal_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace
}  // namespace fastopt::cpu
