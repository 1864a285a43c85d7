#pragma once

#include <pybind11/pybind11.h>

namespace fastopt::bind {

void register_dropout(pybind11::module_& m);

}  // namespace fastopt::bind
