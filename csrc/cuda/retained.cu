// Memory that a call leaves for later ones, where either may be captured.
//
// A buffer that is allocated during capture is written by every replay of the graph. CUDA does not
// report when a graph is destroyed, so such buffers are never freed. A capture may free only memory
// that it allocated itself, and the legacy stream may free nothing while a stream that it synchronizes
// with is being captured: such frees are deferred until the next call on the same stream.
#include <algorithm>
#include <mutex>
#include <set>

#include "cuda/device_buffer.hpp"

namespace fastopt::cuda {
namespace {

struct DeferredFree {
  Place place;
  void* data;
};

std::mutex guard;
std::set<void*> owned_by_graphs;
std::vector<DeferredFree> deferred;

// Performs the deferred frees of a stream that is not being captured.
void free_deferred(const Place& place) {
  std::vector<DeferredFree> due;
  {
    const std::scoped_lock locked(guard);
    const auto first = std::partition(deferred.begin(), deferred.end(), [&](const DeferredFree& one) {
      return one.place.device != place.device || one.place.stream != place.stream;
    });
    due.assign(first, deferred.end());
    deferred.erase(first, deferred.end());
  }
  for (const DeferredFree& one : due) release(one.place, one.data);
}

}  // namespace

void* allocate_retained(const Place& place, int64_t bytes) {
  const CaptureState state = capture_state(place);
  if (state == CaptureState::none) free_deferred(place);
  if (state != CaptureState::capturing) return allocate(place, bytes);
  void* const data = allocate_sync(place, bytes);
  const std::scoped_lock locked(guard);
  owned_by_graphs.insert(data);
  return data;
}

void release_retained(const Place& place, void* data) noexcept {
  try {
    const bool now = capture_state(place) == CaptureState::none;
    {
      const std::scoped_lock locked(guard);
      if (owned_by_graphs.count(data)) return;
      deferred.push_back({place, data});
    }
    if (now) free_deferred(place);
  } catch (const std::exception&) {  // the memory is abandoned, as in release()
  }
}

}  // namespace fastopt::cuda
