// Threads: how many, and a region in which each does its share.
#pragma once

#include <cstdint>

#include "core/float_mode.hpp"

namespace fastopt::cpu {

// Below this much memory traffic the calling thread does it all, in some 15 us. Two threads would bring
// a few of them at best, and lose milliseconds where another process holds the second core.
inline constexpr int64_t kParallelBytes = 1 << 20;

// The number of threads a kernel may use: what set_threads said, else what OpenMP says
// (OMP_NUM_THREADS, threadpoolctl), and 1 in a forked child: libgomp's threads do not survive a fork,
// and waiting for them would hang.
int max_threads();
void set_threads(int n);  // 0: as OpenMP says

// For tests: a cutoff of 0 makes every call parallel.
int64_t parallel_cutoff();
void set_parallel_cutoff(int64_t bytes);

// Bytes of the last-level cache that results may stay in.
int64_t last_level_cache();
void set_last_level_cache(int64_t bytes);  // for tests; 0: as the system says

// A step asks ahead for what it will read where a thread moves more bytes than this.
int64_t prefetch_threshold();
void set_prefetch_threshold(int64_t bytes);  // for tests; 0: as it pays on this CPU

// Whether of arrays of so many bytes in all, read and written, the result would be gone from the cache
// before anyone could read it.
inline bool outgrows_cache(int64_t bytes) { return bytes > last_level_cache(); }

inline int threads_for(int64_t bytes) { return bytes < parallel_cutoff() ? 1 : max_threads(); }

namespace detail {
void run(int threads, void (*work)(void*, int thread, int threads), void* self);
}

// Calls work(thread, threads) on each thread, all in IEEE's default mode.
template <class Work>
void on_threads(int threads, Work&& work) {
  detail::run(
      threads,
      [](void* self, int thread, int of) {
        const IeeeMode mode;
        (*static_cast<Work*>(self))(thread, of);
      },
      &work);
}

}  // namespace fastopt::cpu
