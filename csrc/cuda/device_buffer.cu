#include "cuda/device_buffer.hpp"

#include <cstring>
#include <map>
#include <mutex>
#include <utility>

namespace fastopt::cuda {
namespace {

// A kernel's arguments may take 4 KiB on every device and driver.
constexpr int kWords = 448;
struct ArgPacket {
  uint64_t words[kWords];
};

__global__ void copy_packet(const FASTOPT_GRID_CONSTANT ArgPacket packet, uint64_t* to, int count) {
  grid_dependency_wait();
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) to[i] = packet.words[i];
}

// Makes captures relaxed for the calling thread: the stricter modes forbid synchronous allocation to
// the thread that captures, and one of them to all threads. But Python may create or collect an
// optimizer at any time.
class CaptureModeGuard {
 public:
  CaptureModeGuard() { exchange(); }
  ~CaptureModeGuard() { exchange(); }
  CaptureModeGuard(const CaptureModeGuard&) = delete;
  CaptureModeGuard& operator=(const CaptureModeGuard&) = delete;

 private:
  void exchange() {
    if (cudaThreadExchangeStreamCaptureMode(&mode_) != cudaSuccess)
      cudaGetLastError();  // or the next call would report it
  }

  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// A pool of the library's own, since its settings are not for others to share: it keeps all memory
// that is freed. By default a pool returns it to the system at the next synchronization.
cudaMemPool_t make_pool(int device) {
  const CaptureModeGuard relaxed;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool;
  check(cudaMemPoolCreate(&pool, &properties), "the device has no memory pool");
  uint64_t all = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), "the memory pool");
  return pool;
}

cudaMemPool_t pool_of(int device) {
  static std::mutex guard;
  static std::map<int, cudaMemPool_t> pools;
  const std::scoped_lock locked(guard);
  const auto found = pools.find(device);
  return found != pools.end() ? found->second : pools[device] = make_pool(device);
}

// Also called by destructors: if memory cannot be freed (the device is lost, the process was forked),
// it is abandoned.
void free_sync(const Place& place, void* data) noexcept {
  if (!data) return;
  try {
    const DeviceGuard current(place);
    const CaptureModeGuard relaxed;
    check(cudaFree(data), "cannot free memory");
  } catch (const std::runtime_error&) {
  }
}

}  // namespace

void* allocate(const Place& place, int64_t bytes) {
  if (bytes == 0) return nullptr;
  const DeviceGuard current(place);
  void* data = nullptr;
  check(cudaMallocFromPoolAsync(&data, size_t(bytes), pool_of(place.device), stream_of(place)),
        "no memory left");
  return data;
}

// Also called by destructors.
void release(const Place& place, void* data) noexcept {
  if (!data) return;
  try {
    const DeviceGuard current(place);
    check(cudaFreeAsync(data, stream_of(place)), "cannot free memory");
  } catch (const std::runtime_error&) {
  }
}

void* allocate_sync(const Place& place, int64_t bytes) {
  void* data = nullptr;
  if (bytes == 0) return data;
  const DeviceGuard current(place);
  const CaptureModeGuard relaxed;
  check(cudaMalloc(&data, size_t(bytes)), "no memory left");
  return data;
}

DeviceBuffer::DeviceBuffer(const Place& place, int64_t bytes, Lifetime lifetime)
    : place_(place),
      lifetime_(lifetime),
      data_(static_cast<char*>(lifetime == Lifetime::persistent ? allocate_sync(place, bytes)
                                                                : allocate(place, bytes))) {}

DeviceBuffer::~DeviceBuffer() {
  if (lifetime_ == Lifetime::persistent)
    free_sync(place_, data_);
  else
    release(place_, data_);
}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(place_, other.place_);
  std::swap(lifetime_, other.lifetime_);
  std::swap(data_, other.data_);
  return *this;
}

void copy_to_device(const Place& place, void* to, const void* host, int64_t bytes) {
  const DeviceGuard current(place);
  const int64_t words = bytes / 8;
  for (int64_t done = 0; done < words; done += kWords) {
    ArgPacket packet;
    const int64_t n = words - done < kWords ? words - done : kWords;
    memcpy(packet.words, static_cast<const char*>(host) + done * 8, size_t(n) * 8);
    launch(place, copy_packet, 1, 128, packet, static_cast<uint64_t*>(to) + done, int(n));
  }
}

void copy_to_host(const Place& place, void* host, const void* from, int64_t bytes) {
  const DeviceGuard current(place);
  require_synchronizable(place);
  check(cudaMemcpyAsync(host, from, size_t(bytes), cudaMemcpyDeviceToHost, stream_of(place)),
        "cannot copy to the host");
  check(cudaStreamSynchronize(stream_of(place)), "the device reports");
}

CaptureState capture_state(const Place& place) {
  const DeviceGuard current(place);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(stream_of(place), &status);
  if (error == cudaErrorStreamCaptureImplicit) {
    cudaGetLastError();  // or the next call would report it
    return CaptureState::blocked;
  }
  check(error, "cannot query a stream");
  return status == cudaStreamCaptureStatusNone ? CaptureState::none : CaptureState::capturing;
}

bool is_recording(const Place& place) {
  const CaptureState state = capture_state(place);
  if (state == CaptureState::blocked)
    throw std::runtime_error(
        "the default stream synchronizes with a stream that is being captured: use another stream, or "
        "call this before or after");
  return state == CaptureState::capturing;
}

void require_synchronizable(const Place& place) {
  if (is_recording(place))
    throw std::runtime_error(
        "this call waits for the device, which a stream that is being captured cannot: call it before "
        "or after");
}

}  // namespace fastopt::cuda
