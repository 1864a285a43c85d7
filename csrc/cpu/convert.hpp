// Conversion of tiles of 16-bit storage. rules/half.hpp defines the values; CPU instructions that
// produce the same values are used where available (float16: 4.5 times as fast with F16C). Values
// rounded to bfloat16 are packed by instructions as well: GCC's loop takes 1.3 times as long with
// AVX-512, 1.5 times with AVX2 (Zen 4).
#pragma once

#ifdef __AVX2__
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
inline void widen_half(const Half* from, float* to) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  _mm512_storeu_ps(to, _mm512_maskz_cvtph_ps(kEvery, half));
}
inline void narrow_half(const float* from, Half* to) {
  const __m256i half = _mm512_maskz_cvtps_ph(kEvery, _mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), half);
}

// kQuick words with rounded values in their upper halves.
inline __m512i round_some(const float* from) {
  typedef uint32_t Words __attribute__((vector_size(64)));
  const __m512 x = _mm512_loadu_ps(from);
  return __m512i(round_to_bfloat16(x, Words(x)));
}
inline void narrow_bfloat16(const float* from, BFloat16* to) {
  static constexpr struct UpperHalves {
    alignas(64) uint16_t index[32];
    constexpr UpperHalves() : index() {
      for (int i = 0; i < 32; ++i) index[i] = uint16_t(2 * i + 1);
    }
  } upper;
  const __m512i both = _mm512_permutex2var_epi16(round_some(from), _mm512_load_si512(upper.index),
                                                 round_some(from + kQuick));
  _mm512_storeu_si512(to, both);
}
#elif defined(__AVX2__)
inline constexpr int kQuick = 8;
inline void widen_half(const Half* from, float* to) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  _mm256_storeu_ps(to, _mm256_cvtph_ps(half));
}
inline void narrow_half(const float* from, Half* to) {
  const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), half);
}

// kQuick words with rounded values in their upper halves, moved to the lower ones.
inline __m256i round_some(const float* from) {
  typedef uint32_t Words __attribute__((vector_size(32)));
  const __m256 x = _mm256_loadu_ps(from);
  return __m256i(round_to_bfloat16(x, Words(x)) >> 16);
}
inline void narrow_bfloat16(const float* from, BFloat16* to) {
  // The instruction packs each half of the registers, so the middle quarters must change places.
  const __m256i both = _mm256_packus_epi32(round_some(from), round_some(from + kQuick));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0)));
}
#endif

#ifdef __AVX2__
// Converts `count` values at a time; returns how many.
template <int count, auto convert, class From, class To>
inline FASTOPT_INLINE int convert_by(const From* from, To* to, int n) {
  int i = 0;
  for (; i + count <= n; i += count) convert(from + i, to + i);
  return i;
}
template <>
int widen_quickly(const Half* from, float* to, int n) {
  return convert_by<kQuick, widen_half>(from, to, n);
}
template <>
int narrow_quickly(const float* from, Half* to, int n) {
  return convert_by<kQuick, narrow_half>(from, to, n);
}
template <>
int narrow_quickly(const float* from, BFloat16* to, int n) {
  return convert_by<2 * kQuick, narrow_bfloat16>(from, to, n);
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
