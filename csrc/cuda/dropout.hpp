// Dropout on a device: Backend::dropout.
#pragma once

#include "core/dropout.hpp"

namespace fastopt::cuda {

void dropout(const DropoutCall& call);

}  // namespace fastopt::cuda
