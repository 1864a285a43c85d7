// BatchNorm on the CPU; core/batch_norm.hpp defines the calls.
#pragma once

#include "core/batch_norm.hpp"

namespace fastopt::cpu {

void batch_moments(const BatchMoments&);
void batch_norm_forward(const BatchNormForward&);
void batch_norm_backward(const BatchNormBackward&);

}  // namespace fastopt::cpu
