// Dividing a list of tensors among threads, by bytes over the whole list rather than tensor by tensor,
// and iterating over a range run by run.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fastopt::cpu {

// A tensor is divided among threads only at multiples of this many elements: whole tiles, and at least
// two cache lines of the smallest type.
inline constexpr int64_t kGrain = 1024;

// Iterates over a list for one thread: take(size, weight, visit) advances past the next tensor and
// calls visit(begin, end) for this thread's part of it. `weight` is the number of bytes per element.
// The cuts depend only on the list and the number of threads, so every element belongs to exactly one
// thread.
class ThreadSlice {
 public:
  ThreadSlice(int64_t total, int thread, int threads)
      : first_(cut(total, thread, threads)), last_(cut(total, thread + 1, threads)) {}

  template <class Visit>
  void take(int64_t size, int64_t weight, Visit&& visit) {
    const int64_t begin = part(first_ - at_, size, weight), end = part(last_ - at_, size, weight);
    at_ += size * weight;
    if (begin < end) visit(begin, end);
  }

  // Where slice `thread` begins if [0, total) is divided evenly.
  static int64_t cut(int64_t total, int thread, int threads) {
    return total / threads * thread + total % threads * thread / threads;
  }

 private:
  static int64_t part(int64_t bytes, int64_t size, int64_t weight) {
    if (bytes <= 0) return 0;
    const int64_t element = bytes / weight / kGrain * kGrain;
    return bytes >= size * weight ? size : std::min(element, size);
  }

  int64_t at_ = 0, first_, last_;
};

// Calls visit(index, from, n) for the part of [begin, end) in each run of `length`.
template <class Visit>
void each_run(int64_t length, int64_t begin, int64_t end, Visit&& visit) {
  int64_t index = begin / length, from = begin % length;
  for (; begin < end; ++index, from = 0) {
    const int64_t n = std::min(length - from, end - begin);
    visit(index, from, n);
    begin += n;
  }
}

}  // namespace fastopt::cpu
