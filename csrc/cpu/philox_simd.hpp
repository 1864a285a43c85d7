// Philox on as many counters as the registers hold. Other loops are left to the compiler; in this one
// it would not see that only the lower halves are multiplied, and its code would take two to four times
// as long (GCC 12, Zen 5, ns per word for v2, v3, v4: 1.8, 1.7, 0.57 against 0.74, 0.40, 0.18).
//
// Only for kernels_*.cpp, and in an unnamed namespace, like tile.hpp.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "rules/philox.hpp"

namespace fastopt::cpu {
namespace {

// Operations on registers of 64-bit lanes: the products of the lower halves, and the even or the odd
// lanes of two registers, interleaved.
#if defined(__AVX512F__)
using Register = __m512i;
// All lanes: for unmasked intrinsics GCC 12 warns about an uninitialized value.
inline constexpr __mmask8 kAll = 0xff;
inline Register product(Register a, Register b) { return _mm512_maskz_mul_epu32(kAll, a, b); }
inline Register even(Register a, Register b) { return _mm512_maskz_unpacklo_epi64(kAll, a, b); }
inline Register odd(Register a, Register b) { return _mm512_maskz_unpackhi_epi64(kAll, a, b); }
#elif defined(__AVX2__)
using Register = __m256i;
inline Register product(Register a, Register b) { return _mm256_mul_epu32(a, b); }
inline Register even(Register a, Register b) { return _mm256_unpacklo_epi64(a, b); }
inline Register odd(Register a, Register b) { return _mm256_unpackhi_epi64(a, b); }
#elif defined(__x86_64__)
using Register = __m128i;
inline Register product(Register a, Register b) { return _mm_mul_epu32(a, b); }
inline Register even(Register a, Register b) { return _mm_unpacklo_epi64(a, b); }
inline Register odd(Register a, Register b) { return _mm_unpackhi_epi64(a, b); }
#else
using Register = uint64x2_t;
inline Register product(Register a, Register b) { return vmull_u32(vmovn_u64(a), vmovn_u64(b)); }
inline Register even(Register a, Register b) { return vzip1q_u64(a, b); }
inline Register odd(Register a, Register b) { return vzip2q_u64(a, b); }
#endif

using Vector = uint64_t __attribute__((vector_size(sizeof(Register)), may_alias));

// Four registers at a time hide the latency of the multiplications, and the part of the first two
// rounds that is the same for all counters is computed once.
inline constexpr int kRegisters = 4;
inline constexpr int kRegisterLanes = sizeof(Register) / sizeof(uint64_t);
inline constexpr int kBlockGroups = kRegisters * kRegisterLanes;
inline constexpr int kBlockWords = 4 * kBlockGroups;

struct Lanes {
  Vector r[kRegisters];
};

template <class Make>
FASTOPT_HD Lanes each(Make&& make) {
  Lanes out;
  FASTOPT_UNROLL
  for (int k = 0; k < kRegisters; ++k) out.r[k] = make(k);
  return out;
}

FASTOPT_HD Lanes times(const Lanes& a, uint32_t factor) {
  const Register by = Register(Vector{} + factor);
  return each([&](int k) { return Vector(product(Register(a.r[k]), by)); });
}
FASTOPT_HD Lanes upper(const Lanes& a) {
  return each([&](int k) { return a.r[k] >> 32; });
}
FASTOPT_HD Lanes operator^(const Lanes& a, const Lanes& b) {
  return each([&](int k) { return a.r[k] ^ b.r[k]; });
}
FASTOPT_HD Lanes operator^(const Lanes& a, const Vector& key) {
  return each([&](int k) { return a.r[k] ^ key; });
}

// The words of one call of dropout.
class Philox {
 public:
  Philox(uint64_t seed, uint64_t offset) : offset_(offset) {
    uint32_t key[kPhiloxRounds][2];
    philox_keys(seed, key);
    for (int round = 0; round < kPhiloxRounds; ++round)
      for (int i = 0; i < 2; ++i) key_[round][i] = Vector{} + key[round][i];
  }

  // philox_words() for kBlockGroups consecutive groups.
  void block(uint64_t group, uint32_t* out) const {
    // Lanes 0, 2, 4, ... hold the first half of a register's groups, in the order of even().
    Vector lane;
    for (int i = 0; i < kRegisterLanes; ++i) lane[i] = uint64_t(i / 2 + i % 2 * (kRegisterLanes / 2));
    Lanes word[4];
    FASTOPT_UNROLL
    for (int k = 0; k < kRegisters; ++k) {
      const Vector groups = lane + (group + uint64_t(k) * kRegisterLanes);
      word[0].r[k] = Vector{} + offset_;
      word[1].r[k] = Vector{} + (offset_ >> 32);
      word[2].r[k] = groups;
      word[3].r[k] = groups >> 32;
    }
    philox(word, key_);
    Vector* to = reinterpret_cast<Vector*>(out);
    FASTOPT_UNROLL
    for (int k = 0; k < kRegisters; ++k) {
      const Vector first = (word[0].r[k] & 0xffffffffu) | word[1].r[k] << 32;
      const Vector last = (word[2].r[k] & 0xffffffffu) | word[3].r[k] << 32;
      *to++ = Vector(even(Register(first), Register(last)));
      *to++ = Vector(odd(Register(first), Register(last)));
    }
  }

 private:
  uint64_t offset_;
  Vector key_[kPhiloxRounds][2];
};

}  // namespace
}  // namespace fastopt::cpu
