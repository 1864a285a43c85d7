// Where buffers live and in which order work on them happens.
#pragma once

#include <cstdint>

namespace fastopt {

inline constexpr int kHost = -1;

struct Place {
  int device = kHost;  // or a CUDA device's number
  void* stream =
      nullptr;  // the caller's on that device: work is queued there, and nothing waits for it

  bool on_host() const { return device == kHost; }
};

// How long memory is needed: until the call's work is done, or by later calls, too.
enum class Lifetime : uint8_t { call, persistent };

}  // namespace fastopt
