// The CUDA implementation of Backend.
#pragma once

#include <string>

#include "core/backend.hpp"

namespace fastopt::cuda {

extern const Backend backend;

// The reason why CUDA cannot be used (no driver, no device), or an empty string.
std::string trouble();

// The number of devices and the versions of driver and runtime, for messages.
std::string describe();

}  // namespace fastopt::cuda
