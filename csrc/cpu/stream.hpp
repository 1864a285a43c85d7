// Results written past the caches: a line need not be read before it is overwritten, and what the
// caches hold of the inputs stays there. In an unnamed namespace, as tile.hpp says.
#pragma once

#include <string.h>

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastopt::cpu {
namespace {

// What is streamed are words. A cache line of which a part goes past the caches and a part does not
// costs several times a whole one's time: BatchNorm of (32, 64, 57, 57) in float32 takes 3.8 times as
// long where the ends of tiles are not streamed (Zen 4).
inline constexpr int64_t kWord = 4;

#if defined(__x86_64__)
inline void stream_word(char* to, const char* from) {
  int word;
  memcpy(&word, from, kWord);
  _mm_stream_si32(reinterpret_cast<int*>(to), word);
}
#endif

inline bool in_words(const void* p, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % kWord == 0 && bytes % kWord == 0;
}

inline void stream(char* to, const char* from, int64_t bytes) {
#if defined(__x86_64__)
  if (in_words(to, bytes)) {
    int64_t i = 0;
    for (; i < bytes && reinterpret_cast<uintptr_t>(to + i) % sizeof(__m128i); i += kWord)
      stream_word(to + i, from + i);
    for (; i + int64_t(sizeof(__m128i)) <= bytes; i += sizeof(__m128i))
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    for (; i < bytes; i += kWord) stream_word(to + i, from + i);
    return;
  }
#endif
  memcpy(to, from, bytes);
}

// Tells the CPU that these bytes will be read soon.
inline __attribute__((always_inline)) void fetch(const char* p, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(p + line, 0, 2);
}

// Before another thread may look at what was streamed.
inline void finish_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace
}  // namespace fastopt::cpu
