// The CPU as a Backend.
#pragma once

#include "core/backend.hpp"

namespace fastopt::cpu {

extern const Backend backend;

}  // namespace fastopt::cpu
