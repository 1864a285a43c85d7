// Streams, events, captures and graphs. Work is done when it is submitted, so streams differ only
// in their device and in whether they are being captured.
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "shim/launch.h"
#include "state.h"

struct Capture {
  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  bool spoilt = false;
  std::vector<shim::Work> work = {};
  std::set<void*> allocated = {};  // and not yet freed
};

struct CUstream_st {
  int device;
  bool blocking = true;  // work on the legacy stream waits for it
  std::shared_ptr<Capture> capture = nullptr;
  int64_t given = 0, joined = 0;  // work items in the capture that it has joined; those waited for
};

struct CUevent_st {
  int device;
  std::shared_ptr<Capture> capture = nullptr;  // in which it was last recorded
  CUstream_st* stream = nullptr;
  int64_t given = 0;
};

struct CUgraph_st {
  std::vector<shim::Work> work;
  bool leaves;  // leaves memory allocated that must be freed before the next launch
  bool launched = false;
};
struct CUgraphExec_st : CUgraph_st {};

namespace shim {
namespace {

std::set<cudaStream_t> streams;
std::set<std::shared_ptr<Capture>> captures;  // in progress
CUstream_st legacy[] = {{0}, {1}};
thread_local CUstream_st per_thread[] = {{0}, {1}};
thread_local cudaStreamCaptureMode interaction = cudaStreamCaptureModeGlobal;

// Returns the stream, or null if the handle is invalid.
CUstream_st* find(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return &legacy[device];
  if (stream == cudaStreamPerThread) return &per_thread[device];
  return streams.count(stream) ? stream : nullptr;
}

bool is_legacy(const CUstream_st* stream) { return stream == &legacy[0] || stream == &legacy[1]; }

cudaError_t spoil(Capture& capture, cudaError_t error) {
  capture.spoilt = true;
  return error;
}

// Work on the legacy stream would have to wait for a blocking stream whose work is only being
// recorded.
Capture* legacy_capture() {
  for (const auto& stream : streams)
    if (stream->capture && stream->blocking && stream->device == device) return stream->capture.get();
  return nullptr;
}

cudaError_t check_uncaptured(const CUstream_st* stream) {
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture) return spoil(*stream->capture, cudaErrorStreamCaptureUnsupported);
  return cudaSuccess;
}

}  // namespace

bool is_captured(cudaStream_t handle) {
  const CUstream_st* const stream = find(handle);
  return stream && stream->capture;
}

cudaError_t enqueue(cudaStream_t handle, Work work) {
  need_context();
  CUstream_st* const stream = find(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (is_legacy(stream))
    if (Capture* const waiting = legacy_capture())
      return spoil(*waiting, cudaErrorStreamCaptureImplicit);
  if (!stream->capture)
    work();
  else if (stream->capture->spoilt)
    return cudaErrorStreamCaptureInvalidated;
  else
    stream->capture->work.push_back(std::move(work)), ++stream->given;
  return cudaSuccess;
}

void note_allocated(cudaStream_t handle, void* p) {
  if (is_captured(handle)) find(handle)->capture->allocated.insert(p);
}

cudaError_t note_freed(cudaStream_t handle, void* p) {
  if (!is_captured(handle)) return cudaSuccess;
  Capture& capture = *find(handle)->capture;
  return capture.allocated.erase(p) ? cudaSuccess : spoil(capture, cudaErrorInvalidValue);
}

cudaError_t uncapturable() {
  if (interaction == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  for (const auto& capture : captures) {
    const bool own = capture->thread == std::this_thread::get_id();
    const bool others = interaction == cudaStreamCaptureModeGlobal;
    if ((own && capture->mode != cudaStreamCaptureModeRelaxed) ||
        (others && capture->mode == cudaStreamCaptureModeGlobal))
      return spoil(*capture, cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}

void submit(cudaStream_t handle, Launch launch) {
  const Guard guard(mutex);
  const dim3 grid = launch.grid, block = launch.block;
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (const cudaError_t error = present()) return void(report(error));
  if (threads == 0 || threads > 1024 || block.z > 64 || grid.x - 1 > 0x7ffffffe || grid.y - 1 > 65534 ||
      grid.z - 1 > 65534)
    return void(report(cudaErrorInvalidConfiguration));
  if (launch.cluster == 0 || launch.cluster > kMostBlocks || grid.x % launch.cluster)
    return void(report(cudaErrorInvalidClusterSize));
  if (launch.shared > kShared && launch.shared > allowed_shared[launch.kernel])
    return void(report(cudaErrorInvalidValue));
  const CUstream_st* const stream = find(handle);
  if (!stream || stream->device != device) return void(report(cudaErrorInvalidResourceHandle));
  ++counts.launches;
  counts.clustered += launch.cluster > 1;
  report(enqueue(handle, [launch = std::move(launch)] { run(launch); }));
}

}  // namespace shim

using namespace shim;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const Guard guard(mutex);
  if (const cudaError_t error = present()) return report(error);
  *stream = new CUstream_st{device, !(flags & cudaStreamNonBlocking)};
  streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Guard guard(mutex);
  if (!streams.erase(stream)) return report(cudaErrorInvalidResourceHandle);
  captures.erase(stream->capture);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Guard guard(mutex);
  need_context();
  synchronise();
  return report(check_uncaptured(find(stream)));
}
cudaError_t cudaDeviceSynchronize() {
  const Guard guard(mutex);
  synchronise();
  if (const cudaError_t error = present()) return report(error);
  for (const auto& capture : captures)
    return report(spoil(*capture, cudaErrorStreamCaptureUnsupported));
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (const cudaError_t error = present()) return report(error);
  *event = new CUevent_st{device};
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  const Guard guard(mutex);
  const CUstream_st* const stream = find(handle);
  if (!stream || stream->device != event->device) return report(cudaErrorInvalidResourceHandle);
  if (const cudaError_t error = enqueue(handle, [] {})) return report(error);
  event->capture = stream->capture;
  event->stream = find(handle);
  event->given = stream->given;
  return cudaSuccess;
}

// A stream that waits for a captured event joins its capture, and must be waited for before the
// capture ends.
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  const Guard guard(mutex);
  CUstream_st* const stream = find(handle);
  if (!stream) return report(cudaErrorInvalidResourceHandle);
  ++counts.waits;
  const bool going_on = captures.count(event->capture);
  if (stream->capture && stream->capture != event->capture)
    return report(spoil(*stream->capture, cudaErrorStreamCaptureIsolation));
  if (going_on && is_legacy(stream))
    return report(spoil(*event->capture, cudaErrorStreamCaptureImplicit));
  if (!going_on) return cudaSuccess;
  if (!stream->capture) stream->given = stream->joined = 0;
  stream->capture = event->capture;
  event->stream->joined = event->given;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const Guard guard(mutex);
  CUstream_st* const stream = find(handle);
  if (is_legacy(stream)) return report(cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t error = check_uncaptured(stream)) return report(error);
  stream->capture = std::make_shared<Capture>(Capture{stream, mode, std::this_thread::get_id()});
  captures.insert(stream->capture);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const Guard guard(mutex);
  *graph = nullptr;
  CUstream_st* const stream = find(handle);
  if (!stream) return report(cudaErrorInvalidResourceHandle);
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return report(cudaErrorInvalidValue);
  if (capture->origin != stream) return report(spoil(*capture, cudaErrorStreamCaptureUnmatched));
  captures.erase(capture);
  stream->capture = nullptr;
  bool joined = true;
  for (const auto& other : streams)
    if (other->capture == capture) {
      other->capture = nullptr;
      joined = joined && other->joined == other->given;
    }
  if (!joined) return report(cudaErrorStreamCaptureUnjoined);
  if (capture->spoilt) return report(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st{std::move(capture->work), !capture->allocated.empty()};
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const Guard guard(mutex);
  const CUstream_st* const stream = find(handle);
  if (!stream) return report(cudaErrorInvalidResourceHandle);
  need_context();
  // The query itself does not invalidate the capture.
  if (is_legacy(stream) && legacy_capture()) return report(cudaErrorStreamCaptureImplicit);
  *status = !stream->capture          ? cudaStreamCaptureStatusNone
            : stream->capture->spoilt ? cudaStreamCaptureStatusInvalidated
                                      : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  const Guard guard(mutex);
  need_context();
  std::swap(*mode, interaction);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  if (!graph) return report(cudaErrorInvalidValue);
  *exec = new CUgraphExec_st{*graph};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Guard guard(mutex);
  ++counts.graph_launches;
  if (exec->leaves && std::exchange(exec->launched, true)) return report(cudaErrorInvalidValue);
  return report(enqueue(stream, [work = exec->work] {
    for (const Work& step : work) step();
  }));
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
