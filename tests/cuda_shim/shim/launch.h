// Replaces kernel<<<grid, block, shared, stream>>>(args...), which a C++ compiler cannot parse.
#pragma once

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "block.h"
#include "host.h"
#include "vectors.h"

namespace shim {

struct Launch {
  const void* kernel;  // for messages
  dim3 grid, block;
  size_t shared;                 // bytes
  unsigned cluster;              // blocks that run at once, adjacent along x
  std::function<void()> thread;  // the work of each thread
};

void submit(cudaStream_t stream, Launch launch);  // stream.cpp
void run(const Launch& launch);                   // block.cpp
// The dynamic shared memory of the running kernel, of a block of the cluster; not a byte more than
// requested.
void* shared_room(unsigned rank);
inline void* shared_room() { return shared_room(rank); }

// The translation of nvcc's output for a kernel (ptx.py), called with the addresses of the
// parameters; null if the kernel runs as the C++ compiler compiled it.
using Translated = void (*)(const void* const* parameters);
Translated translation(const void* kernel);  // translation.cpp

// Arguments are converted to the kernel's parameters at once, as with <<<>>>; cudaGetLastError()
// returns the outcome.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, unsigned cluster,
            cudaStream_t stream, Arguments&&... arguments) {
  using Kept = std::tuple<Parameters...>;
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "a kernel gets bytes");
  static_assert(sizeof(Kept) <= 4096, "more parameters than every device takes");
  const auto address = reinterpret_cast<const void*>(kernel);
  submit(stream,
         {address, grid, block, shared, cluster,
          [kernel, other = translation(address), kept = Kept(std::forward<Arguments>(arguments)...)] {
            if (!other) return std::apply(kernel, kept);
            std::apply(
                [other](const auto&... each) {
                  const void* const parameters[] = {&each..., nullptr};
                  other(parameters);
                },
                kept);
          }});
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream,
            Arguments&&... arguments) {
  launch(kernel, grid, block, size_t(0), 1u, stream, std::forward<Arguments>(arguments)...);
}

}  // namespace shim
