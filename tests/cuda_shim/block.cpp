// Runs a grid, block after block, and lets a block's threads meet: barriers, shuffles, ballots. Those
// who wait for somebody who will never come are told so.
#include "shim/block.h"

#include <dlfcn.h>
#include <fenv.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "shim/launch.h"

#ifdef SHIM_THREADS
#include "threads.h"
#else
#include "fibers.h"
#endif

SHIM_PER_THREAD uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim, gridDim;

namespace shim {
namespace {

constexpr int kMaxThreads = 1024;
constexpr auto relaxed = std::memory_order_relaxed;

constexpr const char* kNames[] = {"running",          "returned",        "__syncthreads",
                                  "__syncwarp",       "__shfl_sync",     "__shfl_up_sync",
                                  "__shfl_down_sync", "__shfl_xor_sync", "__ballot_sync"};

struct Thread {
  Gate gate;
  std::atomic<Op> at;
};

struct Lane {
  unsigned mask = 0;  // 0: does not wait
  Op op;
  int from;
  uint64_t value;  // given; then received
};

struct Warp {
  Lock lock;
  Lane lanes[warpSize];
};

Thread threads[kMaxThreads];
Warp warps[kMaxThreads / warpSize];
const Launch* running_launch;
std::unique_ptr<char[]> room;  // of shared memory
int count;                     // threads of a block
// Threads that have not returned, times kPresent, plus those of them that do not wait: one number, so
// that both are read at once, and relaxed, so that counting puts no order between threads.
std::atomic<int> census;
constexpr int kPresent = 1 << 16;
std::atomic<int> arrived;  // at __syncthreads
SHIM_PER_THREAD int me;

// Kernels mostly have internal linkage, so that dladdr knows only where they lie; addr2line knows their
// names.
[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "shim: block (%u, %u, %u) of (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y,
               blockIdx.z, gridDim.x, gridDim.y, gridDim.z, what);
  Dl_info place{};
  if (dladdr(running_launch->kernel, &place)) {
    const auto offset = uintptr_t(running_launch->kernel) - uintptr_t(place.dli_fbase);
    char command[4096];
    std::snprintf(command, sizeof command, "echo \"shim: kernel $(addr2line -Cfpe '%s' 0x%zx)\" >&2",
                  place.dli_fname, size_t(offset));
    if (std::system(command)) std::fputs("shim: addr2line did not run\n", stderr);
  }
  std::abort();
}

// Nobody runs, some wait: says who waits where, stretch by stretch.
[[noreturn]] void stuck() {
  for (int t = 0; t < count;) {
    const int first = t;
    const Op op = threads[t].at.load(relaxed);
    while (t < count && threads[t].at.load(relaxed) == op) ++t;
    std::fprintf(stderr, "shim: threads %d to %d: %s\n", first, t - 1, kNames[int(op)]);
  }
  fail("threads wait at a barrier or in a warp for others that never come there");
}

// The calling thread stops running; `gone` is 1 if for good.
void leave(Op op, int gone) {
  threads[me].at.store(op, relaxed);
  const int left = census.fetch_sub(gone * kPresent + 1, relaxed) - (gone * kPresent + 1);
  if (left > 0 && left % kPresent == 0) stuck();
}

void wait(Op op) {
  const int t = me;
  const uint3 index = threadIdx;
  leave(op, 0);
  threads[t].gate.wait();
  me = t;  // other fibers have run meanwhile
  threadIdx = index;
  threads[t].at.store(Op::running, relaxed);
}

void open(int t) {
  census.fetch_add(1, relaxed);
  threads[t].gate.open();
}

// Have all lanes of the mask come that `last` belongs to? From behind, since lanes mostly come in
// order.
bool complete(const Warp& warp, const Lane& last) {
  for (int l = warpSize - 1; l >= 0; --l)
    if (last.mask >> l & 1 && (warp.lanes[l].mask != last.mask || warp.lanes[l].op != last.op))
      return false;
  return true;
}

void answer(Warp& warp, unsigned mask) {
  uint64_t given[warpSize] = {}, ballot = 0;
  for (int l = 0; l < warpSize; ++l) {
    if (!(mask >> l & 1)) continue;
    given[l] = warp.lanes[l].value;
    ballot |= uint64_t(given[l] != 0) << l;
  }
  for (int l = 0; l < warpSize; ++l) {
    if (!(mask >> l & 1)) continue;
    Lane& lane = warp.lanes[l];
    lane.value = lane.from == kBallot ? ballot : given[lane.from];
    lane.mask = 0;
  }
}

void thread(int t) {
  const unsigned i = unsigned(t);
  me = t;
  threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
  threads[t].at.store(Op::running, relaxed);
  running_launch->thread();
  leave(Op::returned, 1);
}

}  // namespace

int lane() { return me % warpSize; }
void* shared_room() { return room.get(); }

void sync_block() {
  if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 < count) return wait(Op::syncthreads);
  arrived.store(0, relaxed);
  for (int t = 0; t < count; ++t)
    if (t != me) open(t);
}

void wait_for_a_block() { fail("a thread waits for another block, which has yet to begin"); }

uint64_t exchange(Op op, unsigned mask, uint64_t value, int from) {
  Warp& warp = warps[me / warpSize];
  Lane& lane = warp.lanes[me % warpSize];
  if (!(mask >> me % warpSize & 1))
    fail("a lane calls a warp's function with a mask that leaves it out");
  if (from != kBallot && !(mask >> from & 1)) fail("a shuffle reads a lane that its mask leaves out");
  {
    std::lock_guard guard(warp.lock);
    lane = {mask, op, from, value};
    if (complete(warp, lane)) {
      answer(warp, mask);
      const int first = me / warpSize * warpSize;
      for (int l = 0; l < warpSize; ++l)
        if (mask >> l & 1 && first + l != me) open(first + l);
      return lane.value;
    }
  }
  wait(op);
  return lane.value;
}

namespace {

// A device rounds as it does, whatever mode the thread that launches is in.
class DefaultMode {
 public:
  DefaultMode() {
    fegetenv(&host_);
    fesetenv(FE_DFL_ENV);
  }
  ~DefaultMode() { fesetenv(&host_); }

 private:
  fenv_t host_;
};

}  // namespace

void run(const Launch& launch) {
  const DefaultMode mode;
  running_launch = &launch;
  room.reset(new char[launch.shared]);  // of any content, and on a boundary of 16 bytes
  gridDim = launch.grid;
  blockDim = launch.block;
  count = int(blockDim.x * blockDim.y * blockDim.z);
  const unsigned backwards = std::getenv("SHIM_BACKWARDS") ? gridDim.x - 1 : 0;
  for (unsigned z = 0; z < gridDim.z; ++z)
    for (unsigned y = 0; y < gridDim.y; ++y)
      for (unsigned x = 0; x < gridDim.x; ++x) {
        blockIdx = {backwards ? backwards - x : x, y, z};
        census.store(count * kPresent + count, relaxed);
        run_threads(count, thread);
      }
}

}  // namespace shim
