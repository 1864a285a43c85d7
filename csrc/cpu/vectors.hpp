// Vectors of a fixed number of values, for sums, whose lanes are part of the contract. In an unnamed
// namespace, for the reason given in tile.hpp.
#pragma once

#ifdef __AVX__
#include <immintrin.h>
#endif
#include <string.h>

#include <type_traits>

#include "rules/half.hpp"

namespace fastopt::cpu {
namespace {

// Doubles per register. On AVX-512 half a register is used where that suffices, because Zen 4 executes
// a full one in two passes.
#if defined(__AVX512F__)
inline constexpr int kWide = 8, kNarrow = 4;
#elif defined(__AVX__)
inline constexpr int kWide = 4, kNarrow = 4;
#else
inline constexpr int kWide = 2, kNarrow = 2;
#endif

// Whether long sums are written with vectors. Where a register has two doubles, the compiler's own
// loops are better: they convert four floats at a time.
inline constexpr bool kUsesVectors = kWide > 2;

// A vector of one value is the value.
template <class F, int count>
struct Vectors {
  typedef F Type __attribute__((vector_size(count * sizeof(F))));  // on an alias template GCC drops it
};
template <class F>
struct Vectors<F, 1> {
  using Type = F;
};
template <class F, int count>
using Vector = typename Vectors<F, count>::Type;

template <int count, class F>
inline FASTOPT_INLINE Vector<F, count> vector_at(const F* from) {
  Vector<F, count> values;
  memcpy(&values, from, sizeof(values));
  return values;
}

template <class V, class F>
inline FASTOPT_INLINE void store_vector(F* to, const V& values) {
  memcpy(to, &values, sizeof(values));
}

template <int count>
inline FASTOPT_INLINE Vector<double, count> as_doubles(const Vector<float, count>& values) {
  // The instructions, because GCC 12 would convert in two halves.
#ifdef __AVX512F__
  if constexpr (count == 8) return _mm512_maskz_cvtps_pd(0xff, values);
#endif
#ifdef __AVX__
  if constexpr (count == 4) return _mm256_cvtps_pd(values);
#endif
  if constexpr (count == 1)
    return values;
  else
    return __builtin_convertvector(values, Vector<double, count>);
}
template <int count>
inline FASTOPT_INLINE Vector<double, count> as_doubles(const Vector<double, count>& values) {
  return values;
}

// ---- vectors of storage ----

// Whether load() can read several elements of P at once.
#ifdef __AVX2__
template <class P>
inline constexpr bool kLoadsVectors = true;

template <int count>
inline FASTOPT_INLINE Vector<float, count> widen_vector(const BFloat16* from) {
  const __m128i* bits = reinterpret_cast<const __m128i*>(from);
  if constexpr (count == 8)
    return Vector<float, 8>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(bits)), 16));
  else
    return Vector<float, 4>(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64(bits)), 16));
}
template <int count>
inline FASTOPT_INLINE Vector<float, count> widen_vector(const Half* from) {
  const __m128i* bits = reinterpret_cast<const __m128i*>(from);
  if constexpr (count == 8)
    return _mm256_cvtph_ps(_mm_loadu_si128(bits));
  else
    return _mm_cvtph_ps(_mm_loadl_epi64(bits));
}
#else
template <class P>
inline constexpr bool kLoadsVectors = std::is_same_v<P, Compute<P>>;
#endif

// The values of `count` elements from the i-th of an array on, which need not be aligned.
template <int count, class P>
inline FASTOPT_INLINE Vector<Compute<P>, count> load(const char* array, int64_t i) {
  const P* from = reinterpret_cast<const P*>(array + i * int64_t(sizeof(P)));
  if constexpr (count == 1) {
    P element;
    memcpy(&element, from, sizeof(element));
    return widen(element);
  } else if constexpr (std::is_same_v<P, Compute<P>>) {
    return vector_at<count>(from);
  } else {
    return widen_vector<count>(from);  // with AVX2
  }
}

}  // namespace
}  // namespace fastopt::cpu
