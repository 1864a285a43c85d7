// What a call leaves for later ones, where either may be captured.
//
// What a captured call leaves, its graph writes at every replay, as long as there is a graph: nobody
// tells when it ends, so it stays. A capture frees nothing but what it has allocated: what goes during
// one goes later, when its stream is met again.
#include <algorithm>
#include <mutex>
#include <set>

#include "cuda/room.hpp"

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
std::vector<Late> due_on(const Place& place) {
  const std::scoped_lock locked(guard);
  const auto due = std::partition(late.begin(), late.end(), [&](const Late& one) {
    return one.place.device != place.device || one.place.stream != place.stream;
  });
  std::vector<Late> found(due, late.end());
  late.erase(due, late.end());
  return found;
}

}  // namespace

void* keep(const Place& place, int64_t bytes) {
  if (!captured(place)) {
    for (const Late& one : due_on(place)) release(one.place, one.data);
    return allocate(place, bytes);
  }
  const OnDevice current(place);
  void* const data = allocate_outright(bytes);
  const std::scoped_lock locked(guard);
  staying.insert(data);
  return data;
}

void drop(const Place& place, void* data) noexcept {
  try {
    const bool goes_later = captured(place);
    const std::scoped_lock locked(guard);
    if (staying.count(data)) return;
    if (goes_later) return late.push_back({place, data});
  } catch (const std::runtime_error&) {  // as release() does
    return;
  }
  release(place, data);
}

}  // namespace fastopt::cuda
