// Small kernels that exercise the shim's behavior and its reports. As a program, runs the cases
// named on its command line. tests/test_cuda_shim.py lists what is expected of each.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <vector>

#define CHECK(condition)                                         \
  if (!(condition)) {                                            \
    std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
    return false;                                                \
  }
#define WORKS(call) CHECK((call) == cudaSuccess)
#define REFUSES(call, error) CHECK((call) == (error) && cudaGetLastError() == (error))

// A template with external linkage: C++ has its static once, however many files use it.
template <class T>
__global__ void count_runs(T* out) {
  __shared__ T runs;
  *out = ++runs;
}

namespace {

constexpr unsigned kAll = 0xffffffffu;

// Device memory for n values, freed at the end of a case.
template <class T>
struct Array {
  explicit Array(int n) { cudaMalloc(&data, size_t(n) * sizeof(T)); }
  ~Array() { cudaFree(data); }
  Array(const Array&) = delete;
  T* data;
};

// ---- barriers, shared memory ----

// The sum of each block. Without its barrier, warp 0 reads values that other warps may not have
// written.
template <bool barrier>
__global__ void __launch_bounds__(256) sum_blocks(const float* in, float* out) {
  __shared__ float sums[8];
  const unsigned t = threadIdx.x;
  float sum = in[blockIdx.x * blockDim.x + t];
  for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(kAll, sum, d);
  if (t % 32 == 0) sums[t / 32] = sum;
  if constexpr (barrier) __syncthreads();
  if (t >= 32) return;
  sum = t < 8 ? sums[t] : 0.0f;
  for (int d = 4; d > 0; d /= 2) sum += __shfl_down_sync(kAll, sum, d);
  if (t == 0) out[blockIdx.x] = sum;
}

template <bool barrier>
bool reduce() {
  const Array<float> in(1024), out(4);
  for (int i = 0; i < 1024; ++i) in.data[i] = float(i);
  shim::launch(sum_blocks<barrier>, 4, 256, nullptr, in.data, out.data);
  WORKS(cudaGetLastError());
  for (int b = 0; b < 4; ++b) CHECK(out.data[b] == 256.0f * 256.0f * float(b) + 255.0f * 128.0f);
  return true;
}

// Each thread repeatedly reads what another warp wrote.
__global__ void rotate(int* data, int rounds) {
  __shared__ int shared[128];
  const unsigned t = threadIdx.x;
  int own = data[t];
  for (int r = 0; r < rounds; ++r) {
    shared[t] = own;
    __syncthreads();
    own = shared[(t + 32) % 128];
    __syncthreads();
  }
  data[t] = own;
}

bool rotation() {
  const Array<int> data(128);
  for (int i = 0; i < 128; ++i) data.data[i] = i;
  shim::launch(rotate, 1, 128, nullptr, data.data, 5);
  for (int i = 0; i < 128; ++i) CHECK(data.data[i] == (i + 5 * 32) % 128);
  return true;
}

// ---- clusters ----

enum class Leaves : bool { early, late };

// Each block reads the memory of the next one in its cluster, and its rank from its own. A block
// that exits early may be read after it is gone.
template <Leaves leaves>
__global__ void ask_next(int* out) {
  const unsigned blocks = __clusterSizeInBlocks(), rank = __clusterRelativeBlockRank(), t = threadIdx.x;
  static_cast<int*>(shim::shared_room())[t] = int(100 * blockIdx.x + t);
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
  const unsigned next = (rank + 1) % blocks;
  if (leaves == Leaves::early && rank == 0) return;
  for (int i = 0; i < 2; ++i) __syncthreads();  // so that others are first
  out[blockIdx.x * blockDim.x + t] = static_cast<int*>(shim::shared_room(next))[t];
  if (leaves == Leaves::early) return;
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}

template <Leaves leaves>
bool clustered(unsigned blocks, unsigned cluster, unsigned threads) {
  const Array<int> out(int(blocks * threads));
  shim::launch(ask_next<leaves>, blocks, threads, threads * sizeof(int), cluster, nullptr, out.data);
  WORKS(cudaGetLastError());
  for (unsigned i = 0; i < blocks * threads; ++i) {
    const unsigned block = i / threads, next = block / cluster * cluster + (block + 1) % cluster;
    CHECK(out.data[i] == int(100 * next + i % threads));
  }
  return true;
}

bool clusters() {
  const auto kernel = ask_next<Leaves::late>;
  const Array<int> out(1);
  for (const unsigned cluster : {0u, 4u, 9u}) {
    shim::launch(kernel, 18, 1, 4, cluster, nullptr, out.data);
    CHECK(cudaGetLastError() == cudaErrorInvalidClusterSize);
  }
  return clustered<Leaves::late>(6, 1, 40) && clustered<Leaves::late>(6, 3, 40) &&
         clustered<Leaves::late>(16, 8, 33);
}

bool first_run() {
  const Array<int> runs(1);
  shim::launch(count_runs<int>, 1, 1, nullptr, runs.data);
  return *runs.data == 1;
}

// ---- warps ----

template <class T>
__global__ void shuffle(T* out, T scale) {
  const int lane = int(threadIdx.x), n = int(blockDim.x);
  const T own = T(lane) * scale;
  out[lane] = __shfl_sync(kAll, own, 5);
  out[n + lane] = __shfl_sync(kAll, own, 3, 8);
  out[2 * n + lane] = __shfl_up_sync(kAll, own, 3u, 16);
  out[3 * n + lane] = __shfl_down_sync(kAll, own, 3u, 16);
  out[4 * n + lane] = __shfl_xor_sync(kAll, own, 9);
}

template <class T>
bool shuffled(T scale) {
  const Array<T> out(5 * 32);
  shim::launch(shuffle<T>, 1, 32, nullptr, out.data, scale);
  for (int l = 0; l < 32; ++l) {
    CHECK(out.data[l] == 5 * scale);
    CHECK(out.data[32 + l] == T(l / 8 * 8 + 3) * scale);
    CHECK(out.data[64 + l] == T(l % 16 < 3 ? l : l - 3) * scale);
    CHECK(out.data[96 + l] == T(l % 16 > 12 ? l : l + 3) * scale);
    CHECK(out.data[128 + l] == T(l ^ 9) * scale);
  }
  return true;
}

bool shuffles() {
  return shuffled<int>(-3) && shuffled<unsigned>(0x01020304) && shuffled<long long>(-(1LL << 40)) &&
         shuffled<unsigned long long>(1ULL << 40) && shuffled<float>(0.1f) && shuffled<double>(0.1);
}

__global__ void vote(unsigned* out) {
  const int lane = int(threadIdx.x % 32);
  unsigned* const own = out + 8 * threadIdx.x;
  own[0] = __ballot_sync(kAll, lane % 3 == 0);
  own[1] = unsigned(__any_sync(kAll, lane == 7));
  own[2] = unsigned(__any_sync(kAll, lane == 32));
  own[3] = unsigned(__all_sync(kAll, lane < 32));
  own[4] = unsigned(__all_sync(kAll, lane < 31));
  // The halves of a warp diverge.
  if (lane < 16) {
    own[5] = __ballot_sync(0x0000ffffu, 1);
    own[6] = __shfl_sync(0x0000ffffu, unsigned(lane), 2);
  } else {
    __syncwarp(0xffff0000u);
    own[5] = __ballot_sync(0xffff0000u, lane % 2);
    own[6] = 0;
  }
}

bool votes() {
  const Array<unsigned> out(8 * 96);
  shim::launch(vote, 1, 96, nullptr, out.data);
  for (unsigned t = 0; t < 96; ++t) {
    const unsigned* const own = out.data + 8 * t;
    CHECK(own[0] == 0x49249249u);
    CHECK(own[1] == 1 && own[2] == 0 && own[3] == 1 && own[4] == 0);
    CHECK(own[5] == (t % 32 < 16 ? 0x0000ffffu : 0xaaaa0000u));
    CHECK(own[6] == (t % 32 < 16 ? 2u : 0u));
  }
  return true;
}

// ---- indices, atomics, bits ----

__global__ void mark(int* cells) {
  const unsigned x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y,
                 z = blockIdx.z * blockDim.z + threadIdx.z;
  const unsigned nx = gridDim.x * blockDim.x, ny = gridDim.y * blockDim.y;
  atomicAdd(&cells[(z * ny + y) * nx + x], int(1 + x + 100 * y + 10000 * z));
}

bool grid() {
  const int nx = 2 * 3, ny = 3 * 2, nz = 4 * 5;
  const Array<int> cells(nx * ny * nz);
  WORKS(cudaMemset(cells.data, 0, sizeof(int) * nx * ny * nz));
  shim::launch(mark, dim3(2, 3, 4), dim3(3, 2, 5), nullptr, cells.data);
  for (int z = 0, i = 0; z < nz; ++z)
    for (int y = 0; y < ny; ++y)
      for (int x = 0; x < nx; ++x, ++i) CHECK(cells.data[i] == 1 + x + 100 * y + 10000 * z);
  return true;
}

struct Totals {
  unsigned sum, bits, ticket;
  int least, most;
  unsigned long long wide, seen;
};

__global__ void add_up(Totals* totals) {
  const int t = int(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&totals->sum, t);
  atomicOr(&totals->bits, 1u << t % 32);
  atomicMin(&totals->least, -t);
  atomicMax(&totals->most, t);
  atomicAdd(&totals->wide, 1ULL << 32);
  atomicExch(&totals->seen, 7);
  atomicInc(&totals->ticket, 99);
}

bool atomics() {
  const Array<Totals> totals(1);
  *totals.data = {};
  shim::launch(add_up, 3, 64, nullptr, totals.data);
  const Totals& t = *totals.data;
  CHECK(t.sum == 192 * 191 / 2 && t.bits == kAll && t.least == -191 && t.most == 191);
  CHECK(t.wide == 192ULL << 32 && t.seen == 7 && t.ticket == 92);
  CHECK(atomicCAS(&totals.data->most, 191, 5) == 191 && atomicCAS(&totals.data->most, 191, 6) == 5);
  return true;
}

bool bits() {
  CHECK(__popc(0xf0u) == 4 && __ffs(8) == 4 && __ffs(0) == 0 && __clz(1) == 31 && __clz(0) == 32);
  CHECK(__umulhi(0x80000000u, 6u) == 3 && __umul64hi(1ULL << 63, 6) == 3);
  CHECK(__float_as_uint(1.0f) == 0x3f800000u && alignof(float4) == 16 && alignof(ushort4) == 8);
  const float4 v = make_float4(1, 2, 3, 4);
  CHECK(__ldg(&v).z == 3.0f && __ldcs(&v.w) == 4.0f);
  return true;
}

// ---- memory, errors ----

__global__ void fill(float* p, float value, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) p[i] = value;
}

bool memory() {
  const int64_t held = shim_bytes_held();
  float host[8], *p;
  WORKS(cudaMalloc(&p, sizeof host));
  CHECK(p[0] != p[0] && shim_bytes_held() == held + 32);
  cudaPointerAttributes attributes;
  WORKS(cudaPointerGetAttributes(&attributes, p + 3));
  CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 0);
  WORKS(cudaPointerGetAttributes(&attributes, host));
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
  shim::launch(fill, 1, 32, nullptr, p, 2.0f, 8);
  WORKS(cudaMemcpy(host, p, sizeof host, cudaMemcpyDeviceToHost));
  CHECK(host[7] == 2.0f);
  REFUSES(cudaMemcpy(host, p, sizeof host + 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  REFUSES(cudaMemcpy(host, p, sizeof host, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  REFUSES(cudaMemset(host, 0, 4), cudaErrorInvalidValue);
  WORKS(cudaFree(p));
  CHECK(shim_bytes_held() == held);
  shim_fail_allocation(1);
  WORKS(cudaMalloc(&p, 8));
  float* second;
  REFUSES(cudaMalloc(&second, 8), cudaErrorMemoryAllocation);
  WORKS(cudaFree(p));
  return true;
}

bool devices() {
  int count;
  WORKS(cudaGetDeviceCount(&count));
  CHECK(count == 2);
  cudaStream_t first, second;
  WORKS(cudaStreamCreate(&first));
  WORKS(cudaSetDevice(1));
  WORKS(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
  const Array<float> own(1);
  cudaPointerAttributes attributes;
  WORKS(cudaPointerGetAttributes(&attributes, own.data));
  CHECK(attributes.device == 1);
  shim::launch(fill, 1, 32, second, own.data, 1.0f, 1);
  WORKS(cudaGetLastError());
  shim::launch(fill, 1, 32, first, own.data, 2.0f, 1);
  CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle && own.data[0] == 1.0f);
  WORKS(cudaSetDevice(0));
  REFUSES(cudaSetDevice(2), cudaErrorInvalidDevice);
  WORKS(cudaStreamDestroy(first));
  WORKS(cudaStreamDestroy(second));
  REFUSES(cudaStreamSynchronize(second), cudaErrorInvalidResourceHandle);
  shim_set_devices(0);
  REFUSES(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  shim_set_devices(-1);
  REFUSES(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
  shim_set_devices(2);
  return true;
}

bool errors() {
  const Array<float> p(1);
  shim::launch(fill, 1, 1025, nullptr, p.data, 1.0f, 1);
  CHECK(cudaPeekAtLastError() == cudaErrorInvalidConfiguration);
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration && cudaGetLastError() == cudaSuccess);
  shim::launch(fill, 0, 32, nullptr, p.data, 1.0f, 1);
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  CHECK(!std::strcmp(cudaGetErrorName(cudaErrorNoDevice), "cudaErrorNoDevice"));
  CHECK(!std::strcmp(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory"));
  return true;
}

bool counts() {
  shim_reset_counts();
  float host = 0;
  const Array<float> p(1);
  shim::launch(fill, 1, 32, nullptr, p.data, 1.0f, 1);
  cudaMemcpyAsync(p.data, &host, 4, cudaMemcpyHostToDevice);
  CHECK(shim_launches() == 1 && shim_allocations() == 1 && shim_copies() == 1);
  CHECK(shim_synchronisations() == 0);
  cudaMemcpyAsync(&host, p.data, 4, cudaMemcpyDeviceToHost);  // the host waits for pageable memory
  cudaDeviceSynchronize();
  CHECK(shim_copies() == 2 && shim_synchronisations() == 2);
  shim_reset_counts();
  CHECK(shim_launches() == 0 && shim_synchronisations() == 0);
  return true;
}

// ---- graphs ----

__global__ void add(float* p, const float* step) { p[threadIdx.x] += *step; }

bool graph() {
  const Array<float> p(32), step(1);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  float host = 0.5f;
  WORKS(cudaStreamCreate(&stream));
  WORKS(cudaMemset(p.data, 0, 128));
  WORKS(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  cudaStreamCaptureStatus status;
  WORKS(cudaStreamIsCapturing(stream, &status));
  CHECK(status == cudaStreamCaptureStatusActive);
  WORKS(cudaMemcpyAsync(step.data, &host, 4, cudaMemcpyHostToDevice, stream));
  {
    float* argument = p.data;  // captured by value
    shim::launch(add, 1, 32, stream, argument, step.data);
    argument = nullptr;
  }
  WORKS(cudaGetLastError());
  WORKS(cudaStreamEndCapture(stream, &graph));
  CHECK(p.data[3] == 0.0f);  // nothing has run yet
  WORKS(cudaGraphInstantiate(&exec, graph, 0));
  WORKS(cudaGraphDestroy(graph));
  for (int i = 0; i < 3; ++i) WORKS(cudaGraphLaunch(exec, stream));
  host = 2.0f;  // a graph reads the source of a copy when it runs
  WORKS(cudaGraphLaunch(exec, stream));
  CHECK(p.data[3] == 3.5f);
  WORKS(cudaGraphExecDestroy(exec));
  WORKS(cudaStreamDestroy(stream));
  return true;
}

bool uncapturable() {
  cudaStream_t stream, other;
  cudaGraph_t graph;
  void* p;
  WORKS(cudaStreamCreate(&stream));
  WORKS(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  const auto begin = [&](cudaStreamCaptureMode mode) { return cudaStreamBeginCapture(stream, mode); };
  const auto spoilt = [&] {
    return cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated && !graph &&
           cudaGetLastError() == cudaErrorStreamCaptureInvalidated;
  };
  const Array<float> array(1);
  WORKS(begin(cudaStreamCaptureModeGlobal));
  REFUSES(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
  shim::launch(fill, 1, 32, stream, array.data, 1.0f, 1);
  CHECK(cudaGetLastError() == cudaErrorStreamCaptureInvalidated && spoilt());
  WORKS(begin(cudaStreamCaptureModeThreadLocal));
  REFUSES(cudaMalloc(&p, 8), cudaErrorStreamCaptureUnsupported);
  CHECK(spoilt());
  WORKS(begin(cudaStreamCaptureModeGlobal));
  REFUSES(cudaMemcpy(array.data, array.data, 4, cudaMemcpyDeviceToDevice),
          cudaErrorStreamCaptureUnsupported);
  CHECK(spoilt());
  // The legacy stream waits for blocking streams.
  WORKS(begin(cudaStreamCaptureModeRelaxed));
  shim::launch(fill, 1, 32, nullptr, array.data, 1.0f, 1);
  CHECK(cudaGetLastError() == cudaErrorStreamCaptureImplicit && spoilt());
  // A thread that exchanges its capture mode may allocate.
  WORKS(begin(cudaStreamCaptureModeGlobal));
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  WORKS(cudaThreadExchangeStreamCaptureMode(&mode));
  WORKS(cudaMalloc(&p, 8));
  WORKS(cudaFree(p));
  WORKS(cudaThreadExchangeStreamCaptureMode(&mode));
  WORKS(cudaStreamEndCapture(stream, &graph));
  WORKS(cudaGraphDestroy(graph));
  // A capture must not depend on work outside it.
  cudaEvent_t event;
  WORKS(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  WORKS(cudaEventRecord(event, other));
  WORKS(begin(cudaStreamCaptureModeGlobal));
  REFUSES(cudaStreamWaitEvent(stream, event, 0), cudaErrorStreamCaptureIsolation);
  CHECK(spoilt());
  WORKS(cudaEventDestroy(event));
  REFUSES(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal),
          cudaErrorStreamCaptureUnsupported);
  WORKS(cudaStreamDestroy(stream));
  WORKS(cudaStreamDestroy(other));
  return true;
}

// Another stream joins through an event, and memory is allocated and freed inside the capture.
bool forked_graph() {
  const int64_t held = shim_bytes_held();
  {
    const Array<float> p(32);
    cudaStream_t stream, other;
    cudaEvent_t event;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    float* step;
    WORKS(cudaStreamCreate(&stream));
    WORKS(cudaStreamCreate(&other));
    WORKS(cudaEventCreate(&event));
    WORKS(cudaMemset(p.data, 0, 128));
    WORKS(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    WORKS(cudaMallocAsync(&step, 4, stream));
    shim::launch(fill, 1, 32, stream, step, 0.25f, 1);
    WORKS(cudaEventRecord(event, stream));
    WORKS(cudaStreamWaitEvent(other, event, 0));
    shim::launch(add, 1, 32, other, p.data, step);
    WORKS(cudaEventRecord(event, other));
    WORKS(cudaStreamWaitEvent(stream, event, 0));
    WORKS(cudaFreeAsync(step, stream));
    WORKS(cudaStreamEndCapture(stream, &graph));
    WORKS(cudaGraphInstantiate(&exec, graph, 0));
    WORKS(cudaGraphLaunch(exec, stream));
    WORKS(cudaGraphLaunch(exec, other));
    CHECK(p.data[31] == 0.5f);
    WORKS(cudaGraphDestroy(graph));
    WORKS(cudaGraphExecDestroy(exec));
    WORKS(cudaEventDestroy(event));
    WORKS(cudaStreamDestroy(stream));
    WORKS(cudaStreamDestroy(other));
  }
  CHECK(shim_bytes_held() == held);
  return true;
}

// ---- errors that must be reported ----

enum class Wrong { divergent, returned, missing_lane, left_out, foreign_lane, mixed };

__global__ void misbehave(Wrong wrong) {
  const int t = int(threadIdx.x);
  switch (wrong) {
    case Wrong::divergent:
      t < 40 ? __syncthreads() : __syncwarp();
      break;
    case Wrong::returned:
      if (t == 17) return;
      __syncthreads();
      break;
    case Wrong::missing_lane:
      if (t != 3) __shfl_down_sync(kAll, t, 1u);
      break;
    case Wrong::left_out:
      __ballot_sync(0xfffffffeu, 1);
      break;
    case Wrong::foreign_lane:
      if (t < 16) __shfl_sync(0x0000ffffu, t, 20);
      break;
    case Wrong::mixed:
      t < 16 ? __shfl_xor_sync(kAll, t, 1) : __shfl_sync(kAll, t, 1);
      break;
  }
}

template <Wrong wrong>
bool misbehaves() {
  shim::launch(misbehave, 2, 64, nullptr, wrong);
  return true;
}

bool beyond() {  // one element after the end
  const Array<float> p(100);
  shim::launch(fill, 1, 128, nullptr, p.data, 1.0f, 101);
  return true;
}

__global__ void overflow(int n) {  // of a fiber's stack
  volatile int own[8];
  volatile int* volatile p = own;
  p[n] = 1;
}
bool beyond_stack() {
  shim::launch(overflow, 1, 32, nullptr, 8);
  return true;
}

bool misaligned() {
  const Array<float> p(8);
  __ldcs(reinterpret_cast<const float4*>(p.data + 1));
  return true;
}

bool freed_twice() {
  void* p;
  WORKS(cudaMalloc(&p, 8));
  WORKS(cudaFree(p));
  WORKS(cudaFree(p));
  return true;
}

struct Case {
  const char* name;
  bool (*run)();
} const kCases[] = {
    {"reduce", reduce<true>},
    {"rotation", rotation},
    {"clusters", clusters},
    {"shuffles", shuffles},
    {"votes", votes},
    {"grid", grid},
    {"atomics", atomics},
    {"bits", bits},
    {"memory", memory},
    {"devices", devices},
    {"errors", errors},
    {"counts", counts},
    {"graph", graph},
    {"uncapturable", uncapturable},
    {"forked_graph", forked_graph},
    {"first_run", first_run},
    {"no_barrier", reduce<false>},
    {"left_early", [] { return clustered<Leaves::early>(2, 2, 40); }},
    {"divergent", misbehaves<Wrong::divergent>},
    {"returned", misbehaves<Wrong::returned>},
    {"missing_lane", misbehaves<Wrong::missing_lane>},
    {"left_out", misbehaves<Wrong::left_out>},
    {"foreign_lane", misbehaves<Wrong::foreign_lane>},
    {"mixed", misbehaves<Wrong::mixed>},
    {"beyond", beyond},
    {"beyond_stack", beyond_stack},
    {"misaligned", misaligned},
    {"freed_twice", freed_twice},
};

}  // namespace

extern "C" SHIM_API bool selftest(const char* name) {
  for (const Case& c : kCases)
    if (!std::strcmp(c.name, name)) return c.run();
  std::fprintf(stderr, "no case %s\n", name);
  return false;
}

int main(int count, char** names) {
  for (int i = 1; i < count; ++i) {
    if (!selftest(names[i])) return 1;
    std::printf("%s\n", names[i]);
  }
}
