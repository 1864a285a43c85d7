// Found instead of NVIDIA's header, so that a C++ compiler accepts csrc/cuda/ unchanged:
//
//     g++ -std=c++20 -x c++ -I tests/cuda_shim -I csrc csrc/cuda/*.cu tests/cuda_shim/*.cpp
//
// Blocks (or clusters) run one after another. Their threads are fibers of the launching thread or,
// with SHIM_THREADS, real threads under ThreadSanitizer. With SHIM_BACKWARDS in the environment the
// last block runs first, which exposes blocks that depend on earlier ones. Device memory is host
// memory. A stream's work is done when the call returns, or recorded if the stream is being
// captured. The shim cannot detect work that overtakes other work on another stream, a kernel that
// reads a host pointer, or a host that reads a device pointer.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) alignas(bytes)
// Empty, since libstdc++ writes __attribute__((__noinline__)).
#define __noinline__
// One block runs at a time, so a static is enough. The blocks of a cluster would share it, so their
// kernels must use the launch's dynamic shared memory instead. As on a device, a block finds the
// contents that an earlier one left; unlike on a device, the first one finds zeros.
#define __shared__ static

#include "shim/vectors.h"

#include "shim/block.h"
#include "shim/device.h"
#include "shim/host.h"
#include "shim/launch.h"
