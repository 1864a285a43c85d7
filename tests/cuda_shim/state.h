// What host.cpp, memory.cpp and stream.cpp share.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

#include "shim/host.h"

namespace shim {

// One call at a time, and so one kernel: its indices and shared memory are globals.
extern std::recursive_mutex mutex;
using Guard = std::lock_guard<std::recursive_mutex>;

struct Counts {
  int64_t launches, clustered, graph_launches, allocations, synchronisations, copies, waits;
};
extern Counts counts;

extern thread_local int device;  // the current one
// What a call does that needs a context: the runtime makes that of the current device, if the thread
// has none.
void need_context();

// Dynamic shared memory of a block: what a launch may ask for, and may once its kernel was allowed to.
inline constexpr int kShared = 48 << 10, kMostShared = 227 << 10;
extern std::map<const void*, size_t> allowed_shared;

void synchronise();               // counts, and waits if shim_wait_on says so
cudaError_t report(cudaError_t);  // keeps an error for cudaGetLastError
cudaError_t present();            // or why there is no device
bool exists(int device);
bool holds(const void* p, size_t size);  // whether one allocation on a device has all these bytes

// Does the work now or, on a stream that is being captured, keeps it.
using Work = std::function<void()>;
cudaError_t enqueue(cudaStream_t, Work);
bool is_captured(cudaStream_t);
// What a capture allocates is its graph's, and it frees nothing else.
void note_allocated(cudaStream_t, void*);
cudaError_t note_freed(cudaStream_t, void*);

// What no thread may call while it, or another in the global mode, captures: such a call spoils the
// captures.
cudaError_t uncapturable();

}  // namespace shim
