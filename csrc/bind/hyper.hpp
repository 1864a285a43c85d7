// Reads and checks hyper-parameters given by name from Python.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include "core/hyper.hpp"
#include "rules/list.hpp"

namespace fastopt::bind {

namespace py = pybind11;

// Hyper-parameters by name.
using Values = py::typing::Dict<py::str, py::object>;

// The index of a rule in RuleList; ValueError if there is none of that name.
int rule_index(const std::string& name);

// The defaults, updated by the dict. Throws TypeError or ValueError, which name the hyper-parameter,
// for an unknown name, a wrong type, a value out of range, or an unknown choice.
Hyper read_hyper(const RuleInfo& rule, const Values& values);

void register_hyper(py::module_& m);

}  // namespace fastopt::bind
