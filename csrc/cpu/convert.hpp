// Conversion of tiles of 16-bit storage. rules/half.hpp defines the values; CPU instructions that
// produce the same values are used where available (float16: 4.5 times as fast with F16C).
#pragma once

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "rules/half.hpp"

namespace fastopt::cpu {
namespace {

// Return how many of the n values were converted with such instructions; the loops below do the rest.
template <class P>
int widen_quickly(const P*, Compute<P>*, int) {
  return 0;
}
template <class P>
int narrow_quickly(const Compute<P>*, P*, int) {
  return 0;
}

// As wide as the vectors of the loops that read these values next: a load that spans several narrower
// stores cannot be forwarded from them (AVX-512, Adam: 1.25 times as long with vectors of eight).
#if defined(__AVX512F__)
inline constexpr int kQuick = 16;
inline constexpr __mmask16 kEvery = 0xffff;  // as in philox_simd.hpp: unmasked, GCC 12 warns
inline void widen_some(const Half* from, float* to) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  _mm512_storeu_ps(to, _mm512_maskz_cvtph_ps(kEvery, half));
}
inline void narrow_some(const float* from, Half* to) {
  const __m256i half = _mm512_maskz_cvtps_ph(kEvery, _mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), half);
}
#elif defined(__F16C__)
inline constexpr int kQuick = 8;
inline void widen_some(const Half* from, float* to) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  _mm256_storeu_ps(to, _mm256_cvtph_ps(half));
}
inline void narrow_some(const float* from, Half* to) {
  const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), half);
}
#endif

#ifdef __F16C__
template <>
int widen_quickly(const Half* from, float* to, int n) {
  int i = 0;
  for (; i + kQuick <= n; i += kQuick) widen_some(from + i, to + i);
  return i;
}
template <>
int narrow_quickly(const float* from, Half* to, int n) {
  int i = 0;
  for (; i + kQuick <= n; i += kQuick) narrow_some(from + i, to + i);
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
