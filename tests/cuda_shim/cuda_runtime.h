// Found instead of NVIDIA's header, so that a C++ compiler takes csrc/cuda/ as it stands:
//
//     g++ -std=c++20 -x c++ -I tests/cuda_shim -I csrc csrc/cuda/*.cu tests/cuda_shim/*.cpp
//
// Blocks run one after another, or cluster after cluster, their threads as fibers of the launching
// thread, or, with SHIM_THREADS, as real threads for ThreadSanitizer to watch; with SHIM_BACKWARDS in
// the environment the last block runs first, so that who counts on an earlier one is seen. Device
// memory is host memory; a stream's work is done when the call returns, or kept where the stream is
// being captured. Not to be seen here: work that overtakes other work on another stream, a host pointer
// read by a kernel, a device pointer read by the host.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) alignas(bytes)
// Nothing, since libstdc++ writes __attribute__((__noinline__)).
#define __noinline__
// One block runs at a time, so a static is enough; blocks of a cluster would share it, so that what
// they declare must lie in the room of a launch. As on a device, a block finds what an earlier one
// left; unlike there, the first finds zeros.
#define __shared__ static

#include "shim/vectors.h"

#include "shim/block.h"
#include "shim/device.h"
#include "shim/host.h"
#include "shim/launch.h"
