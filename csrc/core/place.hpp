// The device of buffers and the stream that orders the work on them.
#pragma once

#include <cstdint>

namespace fastopt {

inline constexpr int kHost = -1;

struct Place {
  int device = kHost;      // or a CUDA device's number
  void* stream = nullptr;  // the caller's stream on that device, which the work is queued on

  bool on_host() const { return device == kHost; }
};

// How long memory is needed: until the work of the call is done, or for later calls as well.
enum class Lifetime : uint8_t { call, persistent };

}  // namespace fastopt
