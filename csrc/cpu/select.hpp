// Which instruction set the engine uses.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.hpp"

namespace fastopt::cpu {

std::vector<std::string> isas_built();      // best first
std::vector<std::string> isas_supported();  // those of them that this CPU has, best first

// Makes the named set the one in use; an empty name means the best. Throws std::invalid_argument with
// what there is if the name is unknown or the CPU lacks it.
void select_isa(const std::string& name);

const Kernels& kernels();  // the set in use

}  // namespace fastopt::cpu
