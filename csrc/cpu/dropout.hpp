// Dropout, on all threads.
#pragma once

#include "core/dropout.hpp"

namespace fastopt::cpu {

void dropout(const DropoutCall& call);
void dropout_mask(const DropoutMask& mask, int64_t size, bool* keep);

}  // namespace fastopt::cpu
