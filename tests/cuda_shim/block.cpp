// Runs a grid, one cluster (mostly of one block) after another, with the synchronization of
// threads: barriers, shuffles, ballots. A deadlock is reported.
#include "shim/block.h"

#include <dlfcn.h>
#include <fenv.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "shim/launch.h"

#ifdef SHIM_THREADS
#include "threads.h"
#else
#include "fibers.h"
#endif

SHIM_PER_THREAD uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace shim {

SHIM_PER_THREAD unsigned rank;

namespace {

constexpr int kMaxThreads = kMostBlocks * 1024;
constexpr auto relaxed = std::memory_order_relaxed;

constexpr const char* kNames[] = {
    "running",        "returned",         "__syncthreads",   "__syncwarp",    "__shfl_sync",
    "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync", "__ballot_sync", "a cluster's barrier"};

// A thread's state at a cluster's barrier, set by the last thread to arrive and by the waiting thread
// itself, in either order.
enum class Meeting { none, waits, over };

struct Thread {
  Gate gate;
  std::atomic<Op> at;
  std::atomic<Meeting> meeting;
};

struct Lane {
  unsigned mask = 0;  // 0: is not waiting
  Op op;
  int from;
  uint64_t value;  // sent, then received
};

struct Warp {
  Lock lock;
  Lane lanes[warpSize];
};

struct Block {
  std::unique_ptr<char[]> room;  // of shared memory
  std::atomic<int> arrived;      // at __syncthreads
  std::atomic<int> left;         // threads that have not returned
};

// The threads of a block are adjacent, and the first one begins a warp.
Thread threads[kMaxThreads];
Warp warps[kMaxThreads / warpSize];
Block blocks[kMostBlocks];  // of the running cluster
uint3 first_block;
const Launch* running_launch;
int count, apart;  // threads of a block; distance between the first threads of two blocks
// The number of threads that have not returned, times kPresent, plus the number of those that do
// not wait. It is one number, so that both are read at once, and relaxed, so that counting does not
// order the threads.
std::atomic<int> census;
constexpr int kPresent = 1 << 16;
std::atomic<int> arrived;  // at the cluster's barrier
SHIM_PER_THREAD int me;

// Kernels mostly have internal linkage, so dladdr only finds their addresses; addr2line finds their
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

// No thread runs and some wait: reports what each range of threads waits for.
[[noreturn]] void stuck() {
  for (unsigned b = 0; b < running_launch->cluster; ++b)
    for (int t = 0; t < count;) {
      const Thread* const own = threads + int(b) * apart;
      const int first = t;
      const Op op = own[t].at.load(relaxed);
      while (t < count && own[t].at.load(relaxed) == op) ++t;
      std::fprintf(stderr, "shim: block %u of its cluster, threads %d to %d: %s\n", b, first, t - 1,
                   kNames[int(op)]);
    }
  fail("threads wait at a barrier or in a warp for others that never come there");
}

// Stops the calling thread; `gone` is 1 if it has returned.
void leave(Op op, int gone) {
  threads[me].at.store(op, relaxed);
  const int left = census.fetch_sub(gone * kPresent + 1, relaxed) - (gone * kPresent + 1);
  if (left > 0 && left % kPresent == 0) stuck();
}

void wait(Op op) {
  const int t = me;
  const unsigned block = rank;
  const uint3 thread_index = threadIdx, block_index = blockIdx;
  leave(op, 0);
  threads[t].gate.wait();
  me = t;  // other fibers have changed it
  rank = block;
  threadIdx = thread_index;
  blockIdx = block_index;
  threads[t].at.store(Op::running, relaxed);
}

void open(int t) {
  census.fetch_add(1, relaxed);
  threads[t].gate.open();
}

// Returns whether all lanes of `last`'s mask have arrived. Goes backward, since lanes mostly arrive
// in order.
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

// Exposes another block of the cluster that still reads the memory of this one.
void lose(Block& block) {
  if (running_launch->cluster > 1) std::memset(block.room.get(), 0xff, running_launch->shared);
}

void thread(int t) {
  rank = unsigned(t / count);
  const unsigned i = unsigned(t % count);
  me = int(rank) * apart + int(i);
  blockIdx = {first_block.x + rank, first_block.y, first_block.z};
  threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
  threads[me].at.store(Op::running, relaxed);
  running_launch->thread();
  if (blocks[rank].left.fetch_sub(1, std::memory_order_acq_rel) == 1) lose(blocks[rank]);
  leave(Op::returned, 1);
}

}  // namespace

int lane() { return me % warpSize; }
void* shared_room(unsigned of) { return blocks[of].room.get(); }
unsigned blocks_of_cluster() { return running_launch->cluster; }

void sync_block() {
  std::atomic<int>& here = blocks[rank].arrived;
  if (here.fetch_add(1, std::memory_order_acq_rel) + 1 < count) return wait(Op::syncthreads);
  here.store(0, relaxed);
  const int first = int(rank) * apart;
  for (int t = first; t < first + count; ++t)
    if (t != me) open(t);
}

void arrive_at_cluster() {
  const int all = count * int(running_launch->cluster);
  if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 < all) return;
  arrived.store(0, relaxed);
  for (int i = 0; i < all; ++i) {
    const int t = i / count * apart + i % count;
    if (threads[t].meeting.exchange(Meeting::over) == Meeting::waits) open(t);
  }
}

void wait_for_cluster() {
  if (threads[me].meeting.exchange(Meeting::waits) != Meeting::over) wait(Op::cluster);
  threads[me].meeting.store(Meeting::none, relaxed);
}

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

// A device rounds in one way, whatever the floating-point mode of the launching thread.
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
  gridDim = launch.grid;
  blockDim = launch.block;
  count = int(blockDim.x * blockDim.y * blockDim.z);
  apart = (count + warpSize - 1) / warpSize * warpSize;
  const unsigned cluster = launch.cluster;
  for (unsigned b = 0; b < cluster; ++b)  // uninitialized, aligned to 16 bytes
    blocks[b].room.reset(new char[launch.shared]);
  const unsigned backwards = std::getenv("SHIM_BACKWARDS") ? gridDim.x - cluster : 0;
  for (unsigned z = 0; z < gridDim.z; ++z)
    for (unsigned y = 0; y < gridDim.y; ++y)
      for (unsigned x = 0; x < gridDim.x; x += cluster) {
        first_block = {backwards ? backwards - x : x, y, z};
        for (unsigned b = 0; b < cluster; ++b) blocks[b].left.store(count, relaxed);
        const int all = int(cluster) * count;
        census.store(all * kPresent + all, relaxed);
        run_threads(all, thread);
      }
}

}  // namespace shim
