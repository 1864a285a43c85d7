// The optional second extension module, which passes the CUDA engine to the first; that one has all
// checks.
#include <pybind11/pybind11.h>

#include "cuda/engine.hpp"

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "fastopt's CUDA engine. Use the fastopt package instead.";
  m.attr("backend") = pybind11::capsule(&fastopt::cuda::backend, "fastopt.Backend");
  m.attr("ARCHITECTURES") = FASTOPT_CUDA_ARCHITECTURES;
  m.def("trouble", fastopt::cuda::trouble, "Why no work can be done here; empty if it can.");
  m.def("describe", fastopt::cuda::describe, "Versions and devices.");
}
