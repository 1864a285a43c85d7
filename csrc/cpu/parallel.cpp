#include "cpu/parallel.hpp"

#include <omp.h>
#include <pthread.h>

#include <atomic>

namespace fastopt::cpu {
namespace {

std::atomic<int> wanted{0};
std::atomic<int64_t> cutoff{kParallelBytes};
std::atomic<bool> forked{false};

const int watch_forks = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

int max_threads() {
  if (forked) return 1;
  const int n = wanted;
  return n > 0 ? n : omp_get_max_threads();
}

void set_threads(int n) { wanted = n; }
int64_t parallel_cutoff() { return cutoff; }
void set_parallel_cutoff(int64_t bytes) { cutoff = bytes; }

namespace detail {

void run(int threads, void (*work)(void*, int, int), void* self) {
  if (threads <= 1) return work(self, 0, 1);
#pragma omp parallel num_threads(threads)
  work(self, omp_get_thread_num(), omp_get_num_threads());
}

}  // namespace detail
}  // namespace fastopt::cpu
