// In place of kernel<<<grid, block, 0, stream>>>(args...), which a C++ compiler cannot read.
#pragma once

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "host.h"
#include "vectors.h"

namespace shim {

struct Launch {
  const void* kernel;  // for messages
  dim3 grid, block;
  std::function<void()> thread;  // what each thread does
};

void submit(cudaStream_t stream, Launch launch);  // stream.cpp
void run(const Launch& launch);                   // block.cpp

// Arguments become the kernel's parameters here and now, as with <<<>>>; cudaGetLastError() tells what
// became of it.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream,
            Arguments&&... arguments) {
  using Kept = std::tuple<Parameters...>;
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "a kernel gets bytes");
  static_assert(sizeof(Kept) <= 4096, "more parameters than every device takes");
  submit(stream,
         {reinterpret_cast<const void*>(kernel), grid, block,
          [kernel, kept = Kept(std::forward<Arguments>(arguments)...)] { std::apply(kernel, kept); }});
}

}  // namespace shim
