// Philox4x32-10: maps a counter of four words and a key of two words to four random words. Salmon,
// Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
#pragma once

#include <cstdint>

#include "rules/host_device.hpp"

namespace fastopt {

inline constexpr int kPhiloxRounds = 10;
inline constexpr uint32_t kPhiloxMultipliers[2] = {0xD2511F53u, 0xCD9E8D57u};
inline constexpr uint32_t kPhiloxWeyl[2] = {0x9E3779B9u, 0xBB67AE85u};

// Products need 64 bits, so a word is the lower half of a 64-bit lane. The upper half is ignored,
// because times() reads only the lower one. This makes masking unnecessary, and a product is directly
// the next round's word.
FASTOPT_HD uint64_t times(uint64_t word, uint32_t factor) {
#ifdef __CUDA_ARCH__  // one instruction; otherwise nvcc adds the products of the upper halves
  uint64_t product;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(uint32_t(word)), "r"(factor));
  return product;
#else
  return uint64_t(uint32_t(word)) * factor;
#endif
}
FASTOPT_HD uint64_t upper(uint64_t product) { return product >> 32; }

// Two words of the key for each round.
FASTOPT_HD void philox_keys(uint64_t seed, uint32_t (&key)[kPhiloxRounds][2]) {
  constexpr uint32_t low = kPhiloxWeyl[0],
                     high = kPhiloxWeyl[1];  // the arrays are not available on a device
  for (uint32_t round = 0; round < kPhiloxRounds; ++round) {
    key[round][0] = uint32_t(seed) + round * low;
    key[round][1] = uint32_t(seed >> 32) + round * high;
  }
}

// Lane is uint64_t, or a vector type with operations of the same names; Key is a type it can be xor-ed
// with.
template <class Lane, class Key>
FASTOPT_HD void philox(Lane (&word)[4], const Key (&key)[kPhiloxRounds][2]) {
  FASTOPT_UNROLL
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const Lane a = times(word[0], kPhiloxMultipliers[0]), b = times(word[2], kPhiloxMultipliers[1]);
    word[0] = upper(b) ^ word[1] ^ key[round][0];
    word[1] = b;
    word[2] = upper(a) ^ word[3] ^ key[round][1];
    word[3] = a;
  }
}

// Draws four words at a time: those of the elements with indices 4*group to 4*group + 3, in the call
// with this offset. The counter is (offset low, offset high, group low, group high), which corresponds
// to cuRAND's curand_init(seed, group, 4 * offset).
FASTOPT_HD void philox_words(uint64_t seed, uint64_t offset, uint64_t group, uint32_t (&out)[4]) {
  uint64_t word[4] = {offset, offset >> 32, group, group >> 32};
  uint32_t key[kPhiloxRounds][2];
  philox_keys(seed, key);
  philox(word, key);
  for (int i = 0; i < 4; ++i) out[i] = uint32_t(word[i]);
}

}  // namespace fastopt
