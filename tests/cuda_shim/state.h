// Shared by host.cpp, memory.cpp and stream.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

#include "shim/host.h"

namespace shim {

// Serializes the calls, and so the kernels: their indices and shared memory are globals.
extern std::recursive_mutex mutex;
using Guard = std::lock_guard<std::recursive_mutex>;

struct Counts {
  int64_t launches, clustered, graph_launches, allocations, synchronisations, copies, waits;
};
extern Counts counts;

extern thread_local int device;  // the current one
// For calls that need a context: if the thread has none, the runtime creates that of the current
// device.
void need_context();

// Dynamic shared memory of a block: the limit of a launch, and the limit once its kernel allows
// more.
inline constexpr int kShared = 48 << 10, kMostShared = 227 << 10;
extern std::map<const void*, size_t> allowed_shared;

void synchronise();               // counts, and waits if shim_wait_on is in effect
cudaError_t report(cudaError_t);  // stores an error for cudaGetLastError
cudaError_t present();            // success, or the reason why there is no device
bool exists(int device);
bool holds(const void* p, size_t size);  // whether one device allocation contains all these bytes

// Does the work now, or records it if the stream is being captured.
using Work = std::function<void()>;
cudaError_t enqueue(cudaStream_t, Work);
bool is_captured(cudaStream_t);
// Memory that a capture allocates belongs to its graph; a capture cannot free other memory.
void note_allocated(cudaStream_t, void*);
cudaError_t note_freed(cudaStream_t, void*);

// For calls that no thread may make while it captures, or while another one captures in the global
// mode: such a call invalidates the captures.
cudaError_t uncapturable();

}  // namespace shim
