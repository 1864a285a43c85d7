// The compiled module.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>

#include "bind/batch_norm.hpp"
#include "bind/call_device.hpp"
#include "bind/dropout.hpp"
#include "bind/hyper.hpp"
#include "bind/norms.hpp"
#include "bind/stepper.hpp"
#include "cpu/isa_dispatch.hpp"
#include "cpu/parallel.hpp"

namespace py = pybind11;
using namespace fastopt;

namespace {

void register_machine(py::module_& m) {
  m.attr("COMPILER") = FASTOPT_COMPILER;
  m.def("isas_built", cpu::isas_built, "The instruction sets of this build, best first.");
  m.def("isas_supported", cpu::isas_supported, "Those of them that this CPU has.");
  m.def("isa", [] { return std::string(cpu::kernels().isa); }, "The one in use.");
  m.def("select_isa", cpu::select_isa, py::arg("name"), "Use this one; an empty name means the best.");
  m.def("get_num_threads", cpu::max_threads, "How many threads a large enough step uses.");
  m.def("set_num_threads", cpu::set_threads, py::arg("n"), "Use n threads; 0 leaves it to OpenMP.");
  m.def("set_parallel_cutoff", cpu::set_parallel_cutoff, py::arg("bytes"),
        "Use threads from this much memory traffic on. For tests.");
  m.def("set_last_level_cache", cpu::set_last_level_cache, py::arg("bytes"),
        "Take the last-level cache to be this large; 0: as the system says. For tests.");
  m.def("set_prefetch_threshold", cpu::set_prefetch_threshold, py::arg("bytes"),
        "Let steps ask ahead where a thread moves more than this; 0: as it pays here. For tests.");
  m.attr("PARALLEL_CUTOFF") = cpu::kParallelBytes;
}

void select_isa() {
  const char* wanted = std::getenv("FASTOPT_ISA");
  try {
    cpu::select_isa(wanted ? wanted : "");
  } catch (const std::invalid_argument& e) {
    throw py::import_error((wanted ? std::string("FASTOPT_ISA: ") : "fastopt: ") + e.what());
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "fastopt's kernels. Use the fastopt package instead.";
  select_isa();
  register_machine(m);
  bind::register_call_device(m);
  bind::register_hyper(m);
  bind::register_stepper(m);
  bind::register_norms(m);
  bind::register_batch_norm(m);
  bind::register_dropout(m);
}
