// CUDA as a Backend.
#pragma once

#include <string>

#include "core/backend.hpp"

namespace fastopt::cuda {

extern const Backend backend;

// Why no work can be done here, or nothing: no driver, no device.
std::string trouble();

// The devices, and the versions of driver and runtime, for a person.
std::string describe();

}  // namespace fastopt::cuda
