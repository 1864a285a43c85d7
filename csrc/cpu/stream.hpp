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

inline void stream(char* to, const char* from, int64_t bytes) {
#if defined(__x86_64__)
  const int64_t head = -reinterpret_cast<uintptr_t>(to) % sizeof(__m128i);
  if (head < bytes) {
    memcpy(to, from, head);
    int64_t i = head;
    for (; i + int64_t(sizeof(__m128i)) <= bytes; i += sizeof(__m128i))
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    memcpy(to + i, from + i, bytes - i);
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
