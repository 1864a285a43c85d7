// Device functions that need no other thread: atomics, bits, loads and stores with a cache hint.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <type_traits>

using std::max;
using std::min;

namespace shim {

// The integer types for which CUDA has atomics. uint64_t is `unsigned long` on Linux and not among
// them.
template <class T>
concept Atomic = std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, long long> ||
                 std::same_as<T, unsigned long long>;

template <Atomic T, class Change>
T atomically(T* p, Change change) {
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(p, &old, change(old), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

// A device faults where a host may not.
template <class T>
T* aligned(T* p) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) {
    std::fprintf(stderr, "shim: %zu bytes are read or written at %p, which is not aligned\n", sizeof(T),
                 p);
    std::abort();
  }
  return p;
}

}  // namespace shim

// Atomics are relaxed, as on a device. The value (type_identity) is converted to the pointed-to
// type.
template <shim::Atomic T>
T atomicAdd(T* p, std::type_identity_t<T> value) {
  return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}
template <shim::Atomic T>
T atomicOr(T* p, std::type_identity_t<T> value) {
  return __atomic_fetch_or(p, value, __ATOMIC_RELAXED);
}
template <shim::Atomic T>
T atomicExch(T* p, std::type_identity_t<T> value) {
  return __atomic_exchange_n(p, value, __ATOMIC_RELAXED);
}
template <shim::Atomic T>
T atomicMin(T* p, std::type_identity_t<T> value) {
  return shim::atomically(p, [=](T old) { return min(old, value); });
}
template <shim::Atomic T>
T atomicMax(T* p, std::type_identity_t<T> value) {
  return shim::atomically(p, [=](T old) { return max(old, value); });
}
template <shim::Atomic T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return shim::atomically(p, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* p, unsigned last) {
  return shim::atomically(p, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return (unsigned long long)(Wide(a) * b >> 64);
}

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }

template <class T>
T __ldg(const T* p) {
  return *shim::aligned(p);
}
template <class T>
T __ldcs(const T* p) {
  return *shim::aligned(p);
}
template <class T>
void __stcs(T* p, std::type_identity_t<T> value) {
  *shim::aligned(p) = value;
}
template <class T>
void __stcg(T* p, std::type_identity_t<T> value) {
  *shim::aligned(p) = value;
}
