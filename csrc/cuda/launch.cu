#include "cuda/launch.hpp"

#include <array>
#include <atomic>

namespace fastopt::cuda {
namespace {

std::atomic<bool> overlap_asked_for = false;
std::atomic<int> blocks_asked_for = 1;

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

// Asked once a device, which is the current one.
bool made_for_90(int device) {
  enum : uint8_t { unknown, no, yes };
  static std::array<std::atomic<uint8_t>, 64> known;
  if (size_t(device) >= known.size()) return false;
  std::atomic<uint8_t>& own = known[size_t(device)];
  if (own == unknown) own = asked_whether_made_for_90() ? yes : no;
  return own == yes;
}

}  // namespace

bool overlaps(int device) { return overlap_asked_for && made_for_90(device); }

int most_clustered(int device) { return made_for_90(device) ? blocks_asked_for.load() : 1; }

bool ask_for_overlap(bool on) {
  overlap_asked_for = on;
  int device = kHost;
  return cudaGetDevice(&device) == cudaSuccess && overlaps(device);
}

int ask_for_clusters(int blocks) {
  blocks_asked_for = blocks < 1 ? 1 : blocks;
  int device = kHost;
  return cudaGetDevice(&device) == cudaSuccess ? most_clustered(device) : 1;
}

}  // namespace fastopt::cuda
