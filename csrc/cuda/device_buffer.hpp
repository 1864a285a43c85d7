// Device memory, and small copies to and from it.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "cuda/launch.hpp"
#include "rules/divide.hpp"

namespace fastopt::cuda {

// Memory for the work of one call comes from a pool and is freed in stream order, without waiting.
// Persistent memory is allocated and freed synchronously.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(const Place& place, int64_t bytes, Lifetime lifetime);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = static_cast<DeviceBuffer&&>(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  char* data() const { return data_; }

 private:
  Place place_;
  Lifetime lifetime_ = Lifetime::call;
  char* data_ = nullptr;
};

// Divides a buffer into arrays aligned to 64 bytes. Without a buffer it only counts.
class Arena {
 public:
  explicit Arena(char* from = nullptr) : from_(from) {}

  template <class T>
  T* allocate(int64_t count) {
    T* const own = from_ ? reinterpret_cast<T*>(from_ + used_) : nullptr;
    used_ += ceil_div(count * int64_t(sizeof(T)), 64) * 64;
    return own;
  }
  int64_t used() const { return used_; }

 private:
  char* from_;
  int64_t used_ = 0;
};

// Lays out arrays twice: once without memory, to count, then in a buffer of that size.
template <class LayOut>
DeviceBuffer carve(const Place& place, Lifetime lifetime, LayOut&& lay_out) {
  Arena sizes;
  lay_out(sizes);
  DeviceBuffer buffer(place, sizes.used(), lifetime);
  Arena arena(buffer.data());
  lay_out(arena);
  return buffer;
}

void* allocate(const Place& place, int64_t bytes);
void release(const Place& place, void* data) noexcept;

// Memory that later calls use; this call and those may be captured (retained.cu).
void* allocate_retained(const Place& place, int64_t bytes);
void release_retained(const Place& place, void* data) noexcept;

// Works even while some stream is being captured.
void* allocate_sync(const Place& place, int64_t bytes);

// Copies host data to the device by passing it as kernel arguments: stream-ordered, asynchronous, and
// captured by value in a graph. Meant for a few kilobytes; `bytes` must be a multiple of 8.
void copy_to_device(const Place& place, void* to, const void* host, int64_t bytes);

// Copies a whole list. The destination is const for kernels, not for the host.
template <class T>
void copy_list_to_device(const Place& place, const T* to, const std::vector<T>& list) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 8 == 0);
  if (!list.empty())
    copy_to_device(place, const_cast<T*>(to), list.data(), int64_t(list.size() * sizeof(T)));
}

// Copies to the host and synchronizes the stream, which must not be captured.
void copy_to_host(const Place& place, void* host, const void* from, int64_t bytes);

// `blocked`: the legacy stream while a stream that it synchronizes with is being captured. Work queued
// there would invalidate that capture.
enum class CaptureState { none, capturing, blocked };
CaptureState capture_state(const Place& place);
// Whether what is queued now becomes part of a graph. Throws if the stream is blocked.
bool is_recording(const Place& place);
// Throws if the call, which synchronizes the stream, would invalidate a capture.
void require_synchronizable(const Place& place);

}  // namespace fastopt::cuda
