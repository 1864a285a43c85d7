// BatchNorm on a device: Backend::batch_moments and the two passes.
#pragma once

#include "core/batch_norm.hpp"

namespace fastopt::cuda {

void batch_moments(const BatchMoments& call);
void batch_norm_forward(const BatchNormForward& call);
void batch_norm_backward(const BatchNormBackward& call);

// Sets how much shared memory a block may use to hold its channels. This changes no result; it exists
// for tests and benchmarks.
void set_smem_limit(int64_t bytes);

}  // namespace fastopt::cuda
