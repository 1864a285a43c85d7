// The threads of a block as real threads, for ThreadSanitizer, which must see an order between two
// threads only where the kernel creates one. Therefore each thread waits on a semaphore of its own,
// posted only by the thread that lets it continue: waking under a shared mutex would order a late
// waker after everything that the others have done meanwhile, and hide their races.
#pragma once

#include <semaphore.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace shim {

// One thread waits here until another one opens the gate.
class Gate {
 public:
  Gate() { sem_init(&semaphore_, 0, 0); }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  void wait() {
    while (sem_wait(&semaphore_)) {  // interrupted by a signal
    }
  }
  void open() { sem_post(&semaphore_); }

 private:
  sem_t semaphore_;
};

using Lock = std::mutex;

// Never destroyed: its threads wait for work until the process ends.
struct Pool {
  std::vector<std::unique_ptr<Gate>> gates;  // one per thread
  Gate done;
  std::atomic<int> left = 0;
  void (*thread)(int) = nullptr;
};

// Calls thread(0) to thread(count - 1), all at once; returns when all have returned.
inline void run_threads(int count, void (*thread)(int)) {
  static Pool& pool = *new Pool;
  pool.thread = thread;
  pool.left.store(count, std::memory_order_relaxed);
  for (int t = int(pool.gates.size()); t < count; ++t) {
    pool.gates.push_back(std::make_unique<Gate>());
    std::thread([t, gate = pool.gates.back().get()] {
      for (;;) {
        gate->wait();
        pool.thread(t);
        if (pool.left.fetch_sub(1, std::memory_order_acq_rel) == 1) pool.done.open();
      }
    }).detach();
  }
  for (int t = 0; t < count; ++t) pool.gates[size_t(t)]->open();
  pool.done.wait();
}

}  // namespace shim
