// Selection of the instruction set.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.hpp"

namespace fastopt::cpu {

std::vector<std::string> isas_built();      // best first
std::vector<std::string> isas_supported();  // the ones that this CPU supports, best first

// Selects an instruction set by name; an empty name means the best. Throws std::invalid_argument, which
// lists those available, if the name is unknown or the CPU does not support it.
void select_isa(const std::string& name);

// The kernels in use. Read once per call: tests may select another set at any time.
const Kernels& kernels();

}  // namespace fastopt::cpu
