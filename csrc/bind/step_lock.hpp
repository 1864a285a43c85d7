// Exclusive access to an optimizer from several threads.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <mutex>
#include <stdexcept>

namespace fastopt::bind {

class StepMutex {
  friend class StepLock;
  std::atomic<bool> busy_{false}, counting_{false};
  std::mutex count_;  // held while waiting for a device's count
};

// Two concurrent steps would both read the old count and state, and settings must not change during a
// step. Taken with the GIL held. A thread that is only waiting for the device's count is waited for;
// for any other holder, RuntimeError is raised.
class StepLock {
 public:
  enum class For { step, count };

  explicit StepLock(StepMutex& mutex, For use = For::step)
      : mutex_(mutex), counting_(mutex.count_, std::defer_lock) {
    while (mutex.busy_.exchange(true)) {
      if (!mutex.counting_)
        throw std::runtime_error("this optimizer is being stepped by another thread");
      pybind11::gil_scoped_release unlocked;
      const std::scoped_lock counted(mutex.count_);
    }
    if (use == For::count) {
      counting_.lock();
      mutex.counting_ = true;
    }
  }
  ~StepLock() {
    mutex_.counting_ = false;
    mutex_.busy_ = false;
  }

 private:
  StepMutex& mutex_;
  std::unique_lock<std::mutex> counting_;
};

}  // namespace fastopt::bind
