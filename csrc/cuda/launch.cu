#include "cuda/launch.hpp"

#ifdef __CUDACC__
#include <dlfcn.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>

namespace fastopt::cuda {
namespace {

constexpr int kMostClustered = 8;  // more not every device has room for
std::atomic<bool> overlap_asked_for = true;
std::atomic<int> blocks_asked_for = kMostClustered;

// The driver's functions for the context of the calling thread. The runtime has loaded its library.
struct Driver {
  int (*get_context)(void** context);
  int (*set_context)(void* context);
};
Driver find_driver() {
#ifdef __CUDACC__
  void* const library = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_NOW);
  if (!library) return {};
  return {reinterpret_cast<int (*)(void**)>(dlsym(library, "cuCtxGetCurrent")),
          reinterpret_cast<int (*)(void*)>(dlsym(library, "cuCtxSetCurrent"))};
#else
  return {cuCtxGetCurrent, cuCtxSetCurrent};
#endif
}
const Driver& driver() {
  static const Driver found = find_driver();
  return found;
}

// What was asked of a device, once.
using Answers = std::array<std::atomic<int>, 64>;
template <class Ask>
int known_of(Answers& answers, int device, Ask&& ask) {
  if (size_t(device) >= answers.size()) return ask();
  std::atomic<int>& own = answers[size_t(device)];  // 0: not yet, else one more
  if (own == 0) own = ask() + 1;
  return own - 1;
}

// Compiled as all others are.
__global__ void probe() { await_turn(); }

// Machine code that was made of an older PTX, or is made of one by the driver, neither waits for the
// kernel before it nor knows of clusters.
bool asked_whether_made_for_90() {
  cudaFuncAttributes about{};
  const cudaError_t error = cudaFuncGetAttributes(&about, reinterpret_cast<const void*>(probe));
  if (error != cudaSuccess) cudaGetLastError();  // or the next launch would report it
  return error == cudaSuccess && about.ptxVersion >= 90;
}

// All this is of the current device.
bool made_for_90(int device) {
  static Answers answers;
  return known_of(answers, device, asked_whether_made_for_90);
}

#ifdef __CUDACC__
// Of blocks that have all of a processor's shared memory; none where nobody can say.
int asked_clusters_at_once(int device, int blocks) {
  const Place place{device};
  const auto kernel = reinterpret_cast<const void*>(probe);
  const int room = most_shared(place), processors = asked(place, cudaDevAttrMultiProcessorCount);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {unsigned(blocks), 1, 1};
  const dim3 grid{unsigned(processors * blocks)}, block{32};
  const cudaLaunchConfig_t config{grid, block, size_t(room), nullptr, &cluster, 1};
  int count = 0;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, room) == cudaSuccess &&
      cudaOccupancyMaxActiveClusters(&count, kernel, &config) == cudaSuccess)
    return count;
  cudaGetLastError();  // or the next launch would report it
  return 0;
}
#endif

}  // namespace

OnDevice::OnDevice(const Place& place) {
  const bool by_context = driver().get_context && driver().set_context;
  if (by_context && driver().get_context(&context_) != 0) context_ = nullptr;
  if (!by_context || context_) {
    check(cudaGetDevice(&device_), "no current device");
    if (device_ == place.device) return;
  }
  check(cudaSetDevice(place.device), "cannot use the arrays' device");
  changed_ = true;
}

OnDevice::~OnDevice() {
  if (!changed_) return;
  if (driver().get_context && driver().set_context)
    driver().set_context(context_);
  else if (cudaSetDevice(device_) != cudaSuccess)
    cudaGetLastError();  // or the next launch would report it
}

bool overlaps(int device) { return overlap_asked_for && made_for_90(device); }

int most_clustered(int device) { return made_for_90(device) ? blocks_asked_for.load() : 1; }

int clusters_at_once(int device, int blocks) {
#ifdef __CUDACC__
  static Answers answers[kMostClustered + 1];
  return known_of(answers[blocks], device, [&] { return asked_clusters_at_once(device, blocks); });
#else
  return asked(Place{device}, cudaDevAttrMultiProcessorCount) / blocks;  // which tests change
#endif
}

bool ask_for_overlap(bool on) {
  overlap_asked_for = on;
  int device = kHost;
  return cudaGetDevice(&device) == cudaSuccess && overlaps(device);
}

int ask_for_clusters(int blocks) {
  blocks_asked_for = std::clamp(blocks, 1, kMostClustered);
  int device = kHost;
  return cudaGetDevice(&device) == cudaSuccess ? most_clustered(device) : 1;
}

}  // namespace fastopt::cuda
