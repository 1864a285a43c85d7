// Hyper-parameters from Python's names and values, checked.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include "core/hyper.hpp"
#include "rules/list.hpp"

namespace fastopt::bind {

namespace py = pybind11;

// Hyper-parameters by name, as Python gives them.
using Values = py::typing::Dict<py::str, py::object>;

// The index of a rule in RuleList; ValueError if there is none of that name.
int rule_index(const std::string& name);

// Defaults, then what the dict says. TypeError or ValueError, naming the hyper-parameter, for an
// unknown name, a wrong kind, a value outside its range, an unknown choice.
Hyper read_hyper(const RuleInfo& rule, const Values& values);

void register_hyper(py::module_& m);

}  // namespace fastopt::bind
