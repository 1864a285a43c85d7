// Norms of lists of arrays, and clipping in place.
#include "bind/norms.hpp"

#include "bind/array.hpp"
#include "bind/call_device.hpp"
#include "bind/hyper.hpp"
#include "core/float_mode.hpp"
#include "rules/around.hpp"

namespace fastopt::bind {
namespace {

// A checked list of arrays and, for those that are not dense, how to visit them.
struct Checked {
  std::vector<Array> arrays;
  std::vector<std::unique_ptr<Walk>> walks;
  std::vector<NormTensor> tensors;
  CallDevice device;

  Checked(const Arrays& list, const std::string& role, const py::object& names, bool written) {
    Overlaps overlaps;
    for (size_t i = 0; i < list.size(); ++i) {
      const ArgName arg{role, py::ssize_t(i), names};
      Array a = read_array(list[i], arg);
      if (written) {
        require_target(a, arg);
        overlaps.write(a, arg);
      }
      device.add(a, arg);
      const Layout layout(a);
      const bool dense = layout.dense(int64_t(bytes_of(a.dtype)));
      walks.push_back(dense ? nullptr : std::make_unique<Walk>(walk_like(layout, a)));
      tensors.push_back({{a.data, walks.back().get()}, a.dtype, a.size()});
      arrays.push_back(std::move(a));
    }
    overlaps.check_writes();
    for (const Array& a : arrays) device.wait_for(a);
  }

  double norm(size_t first, size_t count, ClipNorm kind) const {
    py::gil_scoped_release unlocked;
    return device.engine().norm(device.place(), tensors.data() + first, int64_t(count), kind);
  }
};

void scale_all(const Checked& list, const std::vector<double>& coefs, double limit) {
  std::vector<ScaleTensor> targets;
  for (size_t i = 0; i < coefs.size(); ++i)
    targets.push_back({list.arrays[i].data, list.arrays[i].dtype, list.tensors[i].size, coefs[i]});
  py::gil_scoped_release unlocked;
  list.device.engine().scale(list.device.place(), targets.data(), int64_t(targets.size()), limit);
}

// The options of these functions, read like the hyper-parameters of a rule.
Hyper clipping(const Values& values) {
  static constexpr const char* names[] = {"max_norm", "norm_type", "clip_eps",
                                          "scope",    "value",     nullptr};
  return read_hyper({"clipping", 0, nullptr, names, nullptr}, values);
}

double global_norm(const Arrays& arrays, const Values& options, const py::object& names) {
  const Hyper h = clipping(options);
  const Checked list(arrays, "arrays", names, false);
  return list.norm(0, list.tensors.size(), h.clip_norm_type);
}

// One norm, or one per array.
using Norms = py::typing::Union<py::float_, py::typing::List<py::float_>>;

Norms clip_grad_norm(const Arrays& grads, const Values& options, const py::object& names) {
  const Hyper h = clipping(options);
  const Checked list(grads, "grads", names, true);
  const IeeeMode mode;  // for the coefficient
  const size_t n = list.tensors.size();
  const auto coefficient = [&](double norm) { return clip_coefficient(norm, h.clip_norm, h.clip_eps); };
  if (h.clip_scope == ClipScope::global) {
    const double norm = list.norm(0, n, h.clip_norm_type);
    scale_all(list, std::vector<double>(n, coefficient(norm)), kNoLimit);
    return py::float_(norm);
  }
  py::list norms;
  std::vector<double> coefs;
  for (size_t i = 0; i < n; ++i) {
    const double norm = list.norm(i, 1, h.clip_norm_type);
    norms.append(norm);
    coefs.push_back(coefficient(norm));
  }
  scale_all(list, coefs, kNoLimit);
  return norms;
}

void clip_grad_value(const Arrays& grads, const Values& options, const py::object& names) {
  const Hyper h = clipping(options);
  const Checked list(grads, "grads", names, true);
  scale_all(list, std::vector<double>(list.tensors.size(), 1.0), h.clip_value);
}

}  // namespace

void register_norms(py::module_& m) {
  m.def("global_norm", global_norm, py::arg("arrays"), py::arg("options"),
        py::arg("names") = py::none(),
        "The norm of the list taken as one sequence. Messages call an array names(role, index).");
  m.def("clip_grad_norm", clip_grad_norm, py::arg("grads"), py::arg("options"),
        py::arg("names") = py::none(),
        "Scale in place to a norm of at most max_norm; returns the norm before or, each array on its\n"
        "own, a list of norms.");
  m.def("clip_grad_value", clip_grad_value, py::arg("grads"), py::arg("options"),
        py::arg("names") = py::none(), "Limit every element in place to [-value, value].");
}

}  // namespace fastopt::bind
