// PTX operations on the host, for the code that ptx.py generates. Types are those of instructions,
// not of registers: `as` reads or writes a register as an instruction of another type does.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>

#include "shim/block.h"
#include "shim/launch.h"
#include "state.h"

namespace ptx {

// 16-bit types of instructions; no register has them.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class To, class From>
To as(From from) {
  if constexpr (sizeof(To) == sizeof(From))
    return std::bit_cast<To>(from);
  else
    return static_cast<To>(from);  // integers: truncated, or extended according to their type
}

template <class T>
constexpr int kBits = 8 * int(sizeof(T));

template <class T>
using Twice = std::conditional_t<
    sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>>;

template <class T>
T high(T a, T b) {
  return T(Twice<T>(a) * b >> kBits<T>);
}

// Shifts by the width or more are allowed.
template <class T>
T left(T a, uint32_t by) {
  return by < kBits<T> ? T(a << by) : T(0);
}
template <class T>
T right(T a, uint32_t by) {
  return by < kBits<T> ? T(a >> by) : a < T(0) ? T(-1) : T(0);
}

// The result is NaN only if both are.
template <class T>
T least(T a, T b) {
  return a < b || b != b ? a : b;
}
template <class T>
T most(T a, T b) {
  return a > b || b != b ? a : b;
}

// Replaces `count` bits of b, starting at bit `at`, by the low bits of a.
template <class T>
T insert(T a, T b, uint32_t at, uint32_t count) {
  const T mask = left<T>(count < kBits<T> ? (T(1) << count) - 1 : ~T(0), at);
  return (b & ~mask) | (left(a, at) & mask);
}

// Each nibble of `choice` selects a byte of b:a or, if its high bit is set, eight copies of that
// byte's sign.
inline uint32_t permute(uint32_t a, uint32_t b, uint32_t choice) {
  const uint64_t both = uint64_t(b) << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t own = choice >> 4 * i & 15, byte = both >> 8 * (own & 7) & 255;
    out |= (own & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
  }
  return out;
}

// The first part is the lowest.
template <class To, class... Parts>
void pack(To& to, Parts... parts) {
  static_assert(sizeof(To) == (sizeof(Parts) + ...));
  char* at = reinterpret_cast<char*>(&to);
  ((std::memcpy(at, &parts, sizeof parts), at += sizeof parts), ...);
}
template <class From, class... Parts>
void unpack(const From& from, Parts&... parts) {
  static_assert(sizeof(From) == (sizeof(Parts) + ...));
  const char* at = reinterpret_cast<const char*>(&from);
  ((std::memcpy(&parts, at, sizeof parts), at += sizeof parts), ...);
}

// A device returns a single NaN, which no host generates: code that mistakes it for another NaN is
// detected.
template <class T>
T with_one_nan(T x) {
  if constexpr (std::is_same_v<T, float>)
    return x != x ? std::bit_cast<float>(0x7fffffffu) : x;
  else if constexpr (std::is_same_v<T, double>)
    return x != x ? std::bit_cast<double>(0x7fffffffffffffffull) : x;
  else
    return x;
}

// Rounds to nearest, ties to even.
inline BFloat16 shortened(float from) {
  const uint32_t bits = std::bit_cast<uint32_t>(from), rest = bits & 0xffff, upper = bits >> 16;
  if (from != from) return {0x7fff};
  return {uint16_t(upper + (rest > 0x8000 || (rest == 0x8000 && upper % 2 == 1)))};
}

// Uses the host's own instruction where there is one, not rules/half.hpp.
template <class To, class From>
To convert(From from) {
  if constexpr (std::is_same_v<To, BFloat16>)
    return shortened(from);
  else if constexpr (std::is_same_v<To, Half>)
    return {from != from ? uint16_t(0x7fff)
                         : uint16_t(_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(from), 0), 0))};
  else if constexpr (std::is_same_v<From, Half>)
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(from.bits)));
  else
    return with_one_nan(static_cast<To>(from));
}

[[noreturn]] inline void trap(const char* what, uint64_t address, size_t bytes) {
  std::fprintf(stderr, "shim: %s: %d bytes at 0x%llx\n", what, int(bytes),
               static_cast<unsigned long long>(address));
  std::abort();
}

// A device traps if a vector is not aligned to its own size.
template <class T, int count>
T* at(uint64_t address) {
  if (address % (sizeof(T) * count)) trap("a misaligned address", address, sizeof(T) * count);
  return reinterpret_cast<T*>(address);
}

// It also traps outside device memory, host memory included.
template <class T, int count>
T* global(uint64_t address) {
  if (!shim::holds(reinterpret_cast<const void*>(address), sizeof(T) * count))
    trap("no memory of the device", address, sizeof(T) * count);
  return at<T, count>(address);
}

// Addresses of shared memory in the cluster, which contain the rank of the block.
inline constexpr int kOfBlock = 24;  // bits, enough for a block's memory
inline uint32_t of_block(uint32_t address, uint32_t rank) { return rank << kOfBlock | address; }
template <size_t size>
uint64_t in_cluster(char (&shared)[shim::kMostBlocks][size], uint32_t address) {
  static_assert(size < 1 << kOfBlock);
  return uint64_t(shared[address >> kOfBlock]) + (address & ((1u << kOfBlock) - 1));
}

// Reads the other lane's value and returns whether there is such a lane; otherwise reads the lane's
// own value. `clamp` holds the last lane of a segment and, from bit 8 on, a mask of the lane bits
// that identify the segment.
inline bool shuffle_down(uint32_t& to, uint32_t value, uint32_t delta, uint32_t clamp, uint32_t mask) {
  const uint32_t own = uint32_t(shim::lane()), segment = clamp >> 8 & 31;
  const uint32_t last = (own & segment) | (clamp & 31 & ~segment), from = own + delta;
  to = uint32_t(shim::exchange(shim::Op::shfl_down, mask, value, int(from <= last ? from : own)));
  return from <= last;
}

template <class T>
T atomic_min(T* place, T value) {
  T old = __atomic_load_n(place, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(place, &old, old < value ? old : value, false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return old;
}

// A kernel by name; its function takes the addresses of the parameters.
struct Entry {
  const char* name;
  shim::Translated function;
};

}  // namespace ptx
