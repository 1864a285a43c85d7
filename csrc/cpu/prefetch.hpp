// Prefetching. In an unnamed namespace, for the reason given in tile.hpp.
#pragma once

#include "core/buffer.hpp"
#include "rules/host_device.hpp"

namespace fastopt::cpu {
namespace {

inline FASTOPT_INLINE void prefetch(const char* p, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += kCacheLine) __builtin_prefetch(p + line, 0, 2);
}

}  // namespace
}  // namespace fastopt::cpu
