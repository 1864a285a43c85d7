// Threads: their number, and parallel regions.
#pragma once

#include <cstdint>

#include "core/float_mode.hpp"

namespace fastopt::cpu {

// Below this much memory traffic the calling thread does all the work, in about 15 us. Two threads
// would save a few us at best, and lose milliseconds if another process occupies the second core.
inline constexpr int64_t kParallelBytes = 1 << 20;

// The number of threads a kernel may use: the one given to set_threads, otherwise OpenMP's
// (OMP_NUM_THREADS, threadpoolctl). It is 1 in a forked child: libgomp's threads do not survive a fork,
// and waiting for them would hang.
int max_threads();
void set_threads(int n);  // 0: OpenMP's number

// For tests: a cutoff of 0 makes every call parallel.
int64_t parallel_cutoff();
void set_parallel_cutoff(int64_t bytes);

// Bytes of the last-level cache that results can stay in.
int64_t last_level_cache();
void set_last_level_cache(int64_t bytes);  // for tests; 0: the measured size

// A step prefetches if a thread moves more bytes than this.
int64_t prefetch_threshold();
void set_prefetch_threshold(int64_t bytes);  // for tests; 0: the default of this CPU

// Whether a result should be written with non-temporal stores: the arrays of the call, `bytes` in all,
// would evict it from the cache before it is read, and it does not overwrite an input, whose lines are
// read anyway.
template <class... Input>
bool bypasses_cache(int64_t bytes, const void* out, const Input*... inputs) {
  return bytes > last_level_cache() && (... && (out != inputs));
}

inline int threads_for(int64_t bytes) { return bytes < parallel_cutoff() ? 1 : max_threads(); }

namespace detail {
void run(int threads, void (*work)(void*, int thread, int threads), void* self);
}

// Calls work(thread, threads) on each thread, in the default IEEE mode.
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
