// Device memory is host memory, identified by its range and its device.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "state.h"

namespace shim {
namespace {

struct Range {
  size_t size;
  int device;
  cudaMemoryType type;
};
std::map<const char*, Range> ranges;  // by their first byte
int64_t fail_after = -1;

// Returns the range that contains p, or null.
const Range* range_of(const void* p, size_t size, bool* beyond = nullptr) {
  const char* const first = static_cast<const char*>(p);
  auto found = ranges.upper_bound(first);
  if (found == ranges.begin()) return nullptr;
  --found;
  const char* const end = found->first + found->second.size;
  if (first >= end) return nullptr;
  if (beyond) *beyond = first + size > end;
  return &found->second;
}

// Allocates memory as cudaMalloc does, filled with NaN.
cudaError_t allocate(void** p, size_t size, cudaMemoryType type) {
  *p = nullptr;
  ++counts.allocations;
  if (size == 0) return cudaSuccess;
  if (fail_after >= 0 && fail_after-- == 0) return cudaErrorMemoryAllocation;
  if (posix_memalign(p, 256, size)) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xff, size);
  ranges[static_cast<char*>(*p)] = {size, device, type};
  return cudaSuccess;
}

void release(void* p) {
  if (!p) return;
  if (!ranges.erase(static_cast<char*>(p))) {
    std::fprintf(stderr, "shim: %p is freed, but is no allocation\n", p);
    std::abort();
  }
  std::free(p);
}

bool is_device(const void* p, size_t size, bool* beyond) {
  const Range* const range = range_of(p, size, beyond);
  return range && range->type == cudaMemoryTypeDevice;
}

cudaError_t check_copy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  bool beyond_to = false, beyond_from = false;
  const bool to_device = is_device(to, size, &beyond_to);
  const bool from_device = is_device(from, size, &beyond_from);
  if (beyond_to || beyond_from) return cudaErrorInvalidValue;
  if (kind == cudaMemcpyDefault || size == 0) return cudaSuccess;
  const bool as_said =
      to_device == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) &&
      from_device == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice);
  return as_said ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t check_set(void* p, size_t size) {
  return holds(p, size) || size == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

bool holds(const void* p, size_t size) {
  bool beyond = false;
  return is_device(p, size, &beyond) && !beyond;
}

}  // namespace shim

using namespace shim;

cudaError_t cudaMalloc(void** p, size_t size) {
  const Guard guard(mutex);
  if (const cudaError_t error = present()) return report(error);
  need_context();
  if (const cudaError_t error = uncapturable()) return report(error);
  return report(allocate(p, size, cudaMemoryTypeDevice));
}
cudaError_t cudaFree(void* p) {
  const Guard guard(mutex);
  need_context();
  if (!p) return cudaSuccess;
  if (const cudaError_t error = uncapturable()) return report(error);
  synchronise();
  release(p);
  return cudaSuccess;
}

// During a capture, memory is allocated once, at once, and memory that the capture frees belongs to
// the graph.
cudaError_t cudaMallocAsync(void** p, size_t size, cudaStream_t stream) {
  const Guard guard(mutex);
  if (const cudaError_t error = present()) return report(error);
  need_context();
  if (const cudaError_t error = allocate(p, size, cudaMemoryTypeDevice)) return report(error);
  note_allocated(stream, *p);
  return report(enqueue(stream, [p = *p, size] { std::memset(p, 0xff, size); }));
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  const Guard guard(mutex);
  need_context();
  if (!is_captured(stream)) return report(enqueue(stream, [p] { release(p); }));
  if (const cudaError_t error = note_freed(stream, p)) return report(error);
  return report(enqueue(stream, [kept = std::shared_ptr<void>(p, release)] {}));
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Guard guard(mutex);
  if (const cudaError_t error = check_copy(to, from, size, kind)) return report(error);
  ++counts.copies;
  if (!range_of(to, size) && !is_captured(stream)) ++counts.synchronisations;
  return report(enqueue(stream, [=] { std::memmove(to, from, size); }));
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  const Guard guard(mutex);
  if (const cudaError_t error = uncapturable()) return report(error);
  if (const cudaError_t error = check_copy(to, from, size, kind)) return report(error);
  ++counts.copies;
  synchronise();
  return report(enqueue(nullptr, [=] { std::memmove(to, from, size); }));
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t size, cudaStream_t stream) {
  const Guard guard(mutex);
  if (const cudaError_t error = check_set(p, size)) return report(error);
  ++counts.copies;
  return report(enqueue(stream, [=] { std::memset(p, value, size); }));
}
cudaError_t cudaMemset(void* p, int value, size_t size) {
  const Guard guard(mutex);
  if (const cudaError_t error = uncapturable()) return report(error);
  return cudaMemsetAsync(p, value, size, nullptr);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  const Guard guard(mutex);
  if (const cudaError_t error = present()) return report(error);
  void* const same = const_cast<void*>(p);
  const Range* const range = range_of(p, 0);
  if (range)
    *attributes = {range->type, range->device, same,
                   range->type == cudaMemoryTypeHost ? same : nullptr};
  else
    *attributes = {cudaMemoryTypeUnregistered, cudaInvalidDeviceId, nullptr, same};
  return cudaSuccess;
}

// A pool is identified by its device, which must be that of the stream.
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  const Guard guard(mutex);
  if (const cudaError_t error = uncapturable()) return report(error);
  const auto& [type, id] = properties->location;
  if (type != cudaMemLocationTypeDevice || properties->allocType != cudaMemAllocationTypePinned)
    return report(cudaErrorInvalidValue);
  if (!exists(id)) return report(cudaErrorInvalidDevice);
  *pool = reinterpret_cast<cudaMemPool_t>(uintptr_t(id) + 1);
  return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** p, size_t size, cudaMemPool_t pool, cudaStream_t stream) {
  if (reinterpret_cast<uintptr_t>(pool) != uintptr_t(device) + 1) return report(cudaErrorInvalidValue);
  return cudaMallocAsync(p, size, stream);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

int64_t shim_bytes_held() {
  const Guard guard(mutex);
  int64_t held = 0;
  for (const auto& [first, range] : ranges) held += int64_t(range.size);
  return held;
}
void shim_fail_allocation(int64_t successes) { fail_after = successes; }
