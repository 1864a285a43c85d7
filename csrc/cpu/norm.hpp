// The norm of a list, on all threads.
#pragma once

#include "core/backend.hpp"

namespace fastopt::cpu {

double norm(const Place&, const NormTensor* tensors, int64_t count, ClipNorm kind);

}  // namespace fastopt::cpu
