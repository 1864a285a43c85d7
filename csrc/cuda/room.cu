#include "cuda/room.hpp"

#include <cstring>
#include <utility>

namespace fastopt::cuda {
namespace {

// Arguments of a kernel may take 4 KiB on every device and driver.
constexpr int kWords = 448;
struct Parcel {
  uint64_t words[kWords];
};

__global__ void unpack(const FASTOPT_WHOLE_ARGUMENT Parcel parcel, uint64_t* to, int count) {
  await_turn();
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) to[i] = parcel.words[i];
}

// The device's pool keeps what comes back to it: by default it would return it to the system at the
// next synchronization, and ask again.
void keep_pool(int device) {
  static thread_local int kept = kHost;
  if (kept == device) return;
  cudaMemPool_t pool;
  check(cudaDeviceGetDefaultMemPool(&pool, device), "the device has no memory pool");
  uint64_t all = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), "the memory pool");
  kept = device;
}

// Allocates and frees outright even while some stream is being captured, which the stricter modes of a
// capture forbid to its own thread, and one of them to all. An optimizer goes when Python collects it.
class DespiteCaptures {
 public:
  DespiteCaptures() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~DespiteCaptures() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  DespiteCaptures(const DespiteCaptures&) = delete;
  DespiteCaptures& operator=(const DespiteCaptures&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

void free_outright(void* data) noexcept {
  if (!data) return;
  const DespiteCaptures relaxed;
  if (cudaFree(data) != cudaSuccess) cudaGetLastError();  // or the next launch would report it
}

}  // namespace

void* allocate(const Place& place, int64_t bytes) {
  if (bytes == 0) return nullptr;
  const OnDevice current(place);
  keep_pool(place.device);
  void* data = nullptr;
  check(cudaMallocAsync(&data, size_t(bytes), stream_of(place)), "no memory left");
  return data;
}

// For destructors: where nothing can be freed (the device is lost, the process was forked) they go on.
void release(const Place& place, void* data) noexcept {
  if (!data) return;
  try {
    const OnDevice current(place);
    check(cudaFreeAsync(data, stream_of(place)), "cannot free memory");
  } catch (const std::runtime_error&) {
  }
}

void* allocate_outright(int64_t bytes) {
  void* data = nullptr;
  const DespiteCaptures relaxed;
  if (bytes > 0) check(cudaMalloc(&data, size_t(bytes)), "no memory left");
  return data;
}

Room::Room(const Place& place, int64_t bytes, Lifetime lifetime)
    : place_(place),
      lifetime_(lifetime),
      data_(static_cast<char*>(lifetime == Lifetime::persistent ? allocate_outright(bytes)
                                                                : allocate(place, bytes))) {}

Room::~Room() { lifetime_ == Lifetime::persistent ? free_outright(data_) : release(place_, data_); }

Room& Room::operator=(Room&& other) noexcept {
  std::swap(place_, other.place_);
  std::swap(lifetime_, other.lifetime_);
  std::swap(data_, other.data_);
  return *this;
}

void copy_to_device(const Place& place, void* to, const void* host, int64_t bytes) {
  const OnDevice current(place);
  const int64_t words = bytes / 8;
  for (int64_t done = 0; done < words; done += kWords) {
    Parcel parcel;
    const int64_t n = words - done < kWords ? words - done : kWords;
    memcpy(parcel.words, static_cast<const char*>(host) + done * 8, size_t(n) * 8);
    launch(place, unpack, 1, 128, parcel, static_cast<uint64_t*>(to) + done, int(n));
  }
}

void copy_to_host(const Place& place, void* host, const void* from, int64_t bytes) {
  const OnDevice current(place);
  check(cudaMemcpyAsync(host, from, size_t(bytes), cudaMemcpyDeviceToHost, stream_of(place)),
        "cannot copy to the host");
  check(cudaStreamSynchronize(stream_of(place)), "the device reports");
}

bool capturing(const Place& place) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream_of(place), &status), "cannot ask a stream");
  return status != cudaStreamCaptureStatusNone;
}

bool is_plain(const Place& place) {
  const OnDevice current(place);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(stream_of(place), &status);
  if (error == cudaErrorStreamCaptureImplicit)
    cudaGetLastError();  // it was asked, and nothing else
  else
    check(error, "cannot ask a stream");
  return error == cudaSuccess && status == cudaStreamCaptureStatusNone;
}

bool captured(const Place& place) {
  const cudaStream_t stream = stream_of(place);
  if (stream == nullptr || stream == cudaStreamLegacy) return false;
  const OnDevice current(place);
  return capturing(place);
}

}  // namespace fastopt::cuda
