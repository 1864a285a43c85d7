// What a call leaves for later ones, where either may be captured.
//
// What a captured call leaves, its graph writes at every replay, as long as there is a graph: nobody
// tells when it ends, so it stays. A capture frees nothing but what it has allocated, and the legacy
// stream nothing while one that it waits for is captured: what goes then goes later, when its stream is
// met again.
#include <algorithm>
#include <mutex>
#include <set>

#include "cuda/device_buffer.hpp"

namespace fastopt::cuda {
namespace {

struct Late {
  Place place;
  void* data;
};

std::mutex guard;
std::set<void*> staying;
std::vector<Late> late;

// A stream that is not captured takes what was to go on it.
void release_late(const Place& place) {
  std::vector<Late> due;
  {
    const std::scoped_lock locked(guard);
    const auto first = std::partition(late.begin(), late.end(), [&](const Late& one) {
      return one.place.device != place.device || one.place.stream != place.stream;
    });
    due.assign(first, late.end());
    late.erase(first, late.end());
  }
  for (const Late& one : due) release(one.place, one.data);
}

}  // namespace

void* allocate_retained(const Place& place, int64_t bytes) {
  const CaptureState state = capture_state(place);
  if (state == CaptureState::none) release_late(place);
  if (state != CaptureState::capturing) return allocate(place, bytes);
  void* const data = allocate_sync(place, bytes);
  const std::scoped_lock locked(guard);
  staying.insert(data);
  return data;
}

void release_retained(const Place& place, void* data) noexcept {
  try {
    const bool now = capture_state(place) == CaptureState::none;
    {
      const std::scoped_lock locked(guard);
      if (staying.count(data)) return;
      late.push_back({place, data});
    }
    if (now) release_late(place);
  } catch (const std::exception&) {  // abandoned, as in release()
  }
}

}  // namespace fastopt::cuda
