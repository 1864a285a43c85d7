// BatchNorm on a device: Backend::batch_moments and the two passes.
#pragma once

#include "core/batch_norm.hpp"

namespace fastopt::cuda {

void batch_moments(const BatchMoments& call);
void batch_norm_forward(const BatchNormForward& call);
void batch_norm_backward(const BatchNormBackward& call);

// Of shared memory, for a block to hold its channels in. Whether it does changes no result: this is for
// tests and measurements.
void set_smem_limit(int64_t bytes);

}  // namespace fastopt::cuda
