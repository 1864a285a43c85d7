// In place of kernel<<<grid, block, shared, stream>>>(args...), which a C++ compiler cannot read.
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
  unsigned cluster;              // blocks that run at once, neighbours along x
  std::function<void()> thread;  // what each thread does
};

void submit(cudaStream_t stream, Launch launch);  // stream.cpp
void run(const Launch& launch);                   // block.cpp
// What the kernel that runs was launched with, of a block of the cluster; not a byte more.
void* shared_room(unsigned rank);
inline void* shared_room() { return shared_room(rank); }

// What nvcc made of a kernel (ptx.py), given where each parameter lies; null if the kernel runs as the
// C++ compiler made it.
using Translated = void (*)(const void* const* parameters);
Translated translation(const void* kernel);  // translation.cpp

// Arguments become the kernel's parameters here and now, as with <<<>>>; cudaGetLastError() tells what
// became of it.
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
