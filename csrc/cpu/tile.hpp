// Tiles: short ranges of an array, converted to the compute type and back. A tile of float or double is
// the array itself. 16-bit storage is widened into a buffer that stays in the first-level cache;
// unaligned and strided arrays, which the vector loops cannot read in place, are copied into it.
//
// Everything is in an unnamed namespace: the kernels_*.cpp files that include this header are compiled
// once per instruction set, and their copies must not share a symbol, of which the linker would keep
// one.
#pragma once

#include <string.h>

#include <type_traits>

#include "cpu/convert.hpp"
#include "cpu/kernels.hpp"
#include "cpu/nontemporal.hpp"
#include "cpu/prefetch.hpp"

namespace fastopt::cpu {
namespace {

// How many bytes ahead loops prefetch. The CPU does not predict well what is read a tile at a time.
inline constexpr int64_t kAhead = 2048;

inline bool aligned(const void* p, size_t to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }

inline const char* at(const void* base, int64_t bytes) {
  return static_cast<const char*>(base) + bytes;
}

// Prefetches what is kAhead bytes after elements [begin, begin + n).
template <class P>
inline FASTOPT_INLINE void prefetch_ahead(const void* base, int64_t begin, int n) {
  prefetch(at(base, begin * int64_t(sizeof(P)) + kAhead), n * int64_t(sizeof(P)));
}

// Calls visit(i, offset, m) for elements [begin, begin + n) of a strided array, in the order of its
// walk: m elements from the i-th on are along the fastest axis, the first of them at byte `offset`.
template <class Visit>
inline FASTOPT_INLINE void each_strided(const Walk& walk, int64_t begin, int n, Visit&& visit) {
  const int last = int(walk.ndim) - 1;
  int64_t index[kMaxDims];
  for (int d = last; d >= 0; begin /= walk.shape[d--]) index[d] = begin % walk.shape[d];
  for (int i = 0, m; i < n; i += m) {
    int64_t offset = 0;
    for (int d = 0; d <= last; ++d) offset += index[d] * walk.stride[d];
    const int64_t left = walk.shape[last] - index[last];
    m = left < n - i ? int(left) : n - i;
    visit(i, offset, m);
    index[last] += m;
    for (int d = last; d > 0 && index[d] == walk.shape[d]; --d) {
      index[d] = 0;
      ++index[d - 1];
    }
  }
}

// Copies elements that are `from_stride` bytes apart to places that are `to_stride` bytes apart.
template <class P>
inline void copy_strided(char* to, int64_t to_stride, const char* from, int64_t from_stride, int n) {
  constexpr int64_t dense = sizeof(P);
  if (to_stride == dense && from_stride == dense) {
    memcpy(to, from, n * dense);
    return;
  }
  for (int k = 0; k < n; ++k) memcpy(to + k * to_stride, from + k * from_stride, dense);
}

template <class P>
void gather(const Source& source, int64_t begin, int n, P* out) {
  const Walk& walk = *source.walk;
  each_strided(walk, begin, n, [&](int i, int64_t offset, int m) FASTOPT_INLINE {
    copy_strided<P>(reinterpret_cast<char*>(out + i), sizeof(P), at(source.data, offset),
                    walk.stride[walk.ndim - 1], m);
  });
}

template <class P>
void scatter(const P* values, const Target& target, int64_t begin, int n) {
  const Walk& walk = *target.walk;
  each_strided(walk, begin, n, [&](int i, int64_t offset, int m) FASTOPT_INLINE {
    copy_strided<P>(const_cast<char*>(at(target.data, offset)), walk.stride[walk.ndim - 1],
                    reinterpret_cast<const char*>(values + i), sizeof(P), m);
  });
}

// Calls visit(i, n) for each tile of [begin, end). For full tiles n is a compile-time constant.
template <class P, class Visit>
inline FASTOPT_INLINE void each_tile(int64_t begin, int64_t end, Visit&& visit) {
  int64_t i = begin;
  for (; i + kTileOf<P> <= end; i += kTileOf<P>) visit(i, kTileOf<P>);
  if (i < end) visit(i, int(end - i));
}

// A tile of at most `most` elements.
template <class P, int most = kTileOf<P>>
class Tile {
  using F = Compute<P>;
  static constexpr bool same = std::is_same_v<P, F>;

 public:
  // Elements [begin, begin + n) as values: in place if possible, otherwise a copy that may be changed.
  F* open(const void* base, int64_t begin, int n) {
    const char* p = at(base, begin * int64_t(sizeof(P)));
    if (aligned(p, alignof(P))) return values(reinterpret_cast<const P*>(p), n);
    memcpy(raw_, p, n * sizeof(P));
    return values(raw_, n);
  }

  F* open(const Source& source, int64_t begin, int n) {
    if (!source.walk) return open(source.data, begin, n);
    gather(source, begin, n, raw_);
    return values(raw_, n);
  }

  // A buffer for values that must not be changed in place.
  F* scratch() {
    if constexpr (same)
      return raw_;
    else
      return wide_;
  }

  // Where to compute values that close() will store: in place if possible, unless with non-temporal
  // stores.
  F* place(void* base, int64_t begin, bool nontemporal = false) {
    if constexpr (same)
      if (F* p = reinterpret_cast<F*>(base) + begin; !nontemporal && aligned(p, alignof(F))) return p;
    return scratch();
  }

  // Stores values in the array, unless they are there already.
  void close(const F* values, void* base, int64_t begin, int n, bool nontemporal = false) {
    char* p = const_cast<char*>(at(base, begin * int64_t(sizeof(P))));
    const char* from = reinterpret_cast<const char*>(values);
    if constexpr (!same) {
      if (!nontemporal && aligned(p, alignof(P)))
        return narrow_tile(values, reinterpret_cast<P*>(p), n);
      narrow_tile(values, raw_, n);
      from = reinterpret_cast<const char*>(raw_);
    }
    if (nontemporal)
      store_nontemporal(p, from, n * int64_t(sizeof(P)));
    else if (from != p)
      memcpy(p, from, n * sizeof(P));
  }

  F* place(const Target& target, int64_t begin, bool nontemporal = false) {
    return target.walk ? scratch() : place(target.data, begin, nontemporal);
  }

  // As above. For an array with a walk, `values` must be what place() returned.
  void close(const F* values, const Target& target, int64_t begin, int n, bool nontemporal = false) {
    if (!target.walk) return close(values, target.data, begin, n, nontemporal);
    if constexpr (!same) narrow_tile(values, raw_, n);
    scatter(raw_, target, begin, n);
  }

 private:
  F* values(const P* from, int n) {
    if constexpr (same) {
      return const_cast<F*>(from);
    } else {
      widen_tile(from, wide_, n);
      return wide_;
    }
  }

  alignas(64) P raw_[most];
  alignas(64) F wide_[same ? 1 : most];
};

}  // namespace
}  // namespace fastopt::cpu
