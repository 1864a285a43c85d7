// Scales and clamps a list in place, in one launch.
#pragma once

#include "core/backend.hpp"

namespace fastopt::cuda {

void scale(const Place& place, const ScaleTensor* tensors, int64_t count, double limit);

}  // namespace fastopt::cuda
