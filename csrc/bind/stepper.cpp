#include "bind/stepper.hpp"

#include <pybind11/stl.h>

#include <utility>

#include "bind/collect.hpp"

namespace fastopt::bind {

// Releases the gradients at the end of a step, also on errors.
struct Stepper::GradReleaser {
  Stepper& stepper;
  ~GradReleaser() {
    stepper.grads_.release();
    stepper.targets_.device.release_waited_streams();
  }
};

Stepper::Stepper(const std::string& rule, py::list params, py::list states,
                 std::vector<int64_t> group_sizes, py::object names, std::string param_role,
                 std::string grad_role, bool persistent)
    : rule_(InfoTable<RuleList>::rules[rule_index(rule)]),
      rule_index_(rule_index(rule)),
      params_(std::move(params)),
      states_(std::move(states)),
      group_sizes_(std::move(group_sizes)),
      names_(std::move(names)),
      param_role_(std::move(param_role)),
      grad_role_(std::move(grad_role)),
      single_(param_role_ == "param"),
      persistent_(persistent),
      hypers_(group_sizes_.size()) {}

void Stepper::set_hyper(size_t group, const Values& values) {
  const StepLock lock(mutex_);
  hypers_.at(group) = read_hyper(rule_, values);
}

// Called after set_hyper: a device with a plan is updated at once, because a graph may be replayed
// next.
void Stepper::set_list_hyper(const Values& values) {
  const StepLock lock(mutex_);
  list_hyper_ = read_hyper(rule_, values);
  if (!plan_) return;
  targets_.device.refresh_stream();
  const Backend& engine = targets_.device.engine();
  py::gil_scoped_release unlocked;
  engine.set_hypers(plan_.get(), call());
}

Counts Stepper::counts() {
  if (!device_counts_) return counts_;  // may be called during a step
  const StepLock lock(mutex_, StepLock::For::count);
  return known_counts();
}

Counts Stepper::known_counts() {
  if (!plan_) return counts_;
  targets_.device.refresh_stream();  // a graph may have been replayed on another stream
  const Backend& engine = targets_.device.engine();
  py::gil_scoped_release unlocked;  // this may wait for the device, and the device for Python
  return counts_ = engine.counts(plan_.get(), targets_.device.place());
}

void Stepper::set_counts(Counts counts) {
  const StepLock lock(mutex_);
  if (plan_) {
    targets_.device.refresh_stream();  // a graph may be replayed next, on another stream
    const Backend& engine = targets_.device.engine();
    py::gil_scoped_release unlocked;
    engine.set_counts(plan_.get(), targets_.device.place(), counts);
  }
  counts_ = counts;  // unless the engine has refused
}

StepCall Stepper::call() {
  return {targets_.device.place(), rule_index_,  runs_.data(), int64_t(runs_.size()),
          counts_.step + 1,        &list_hyper_, plan_.get()};
}

// The host needs no plan.
void Stepper::make_plan() {
  const Backend& engine = targets_.device.engine();
  if (plan_ || !engine.make_step_plan) return;
  plan_ = {engine.make_step_plan(call()), PlanDeleter{engine.destroy_step_plan}};
  engine.set_counts(plan_.get(), targets_.device.place(), counts_);
}

// ---- the step ----

void Stepper::refresh_targets() {
  if (!targets_unchanged())
    check_targets();
  else if (!targets_.device.place().on_host())
    targets_.device.refresh_stream();
  if (persistent_) make_plan();
}

void Stepper::check() {
  const StepLock lock(mutex_);
  refresh_targets();
}

void Stepper::require_idle() { const StepLock lock(mutex_); }

bool Stepper::step(py::handle grads, py::object grad_names) {
  const StepLock lock(mutex_);
  grad_names_ = grad_names.is_none() ? names_ : std::move(grad_names);
  refresh_targets();
  const GradReleaser releaser{*this};
  const bool as_before = grads_.same_grads_as_last_step(grads, grad_context());
  const py::tuple held = as_before ? py::tuple() : tuple_of(grads);
  const bool uploaded = std::exchange(uploaded_, false);
  if (!uploaded) grads_.forget_data();
  bool same = as_before || read_grads(held);
  while (!targets_checked_) {
    refresh_targets();
    same = read_grads(held);
  }
  StepCall call = this->call();
  call.same_grads = same && uploaded;
  StepReport report;
  {
    // Safe without the GIL: on the host, the buffers' owners are kept alive by targets_, `held` and
    // grads_, and the StepLock keeps every other thread away from what this call points at. On a
    // device, this work is ordered before whatever the arrays' library queues later, even if it reuses
    // their memory: it is on the same stream or on one that has waited for it (release_waited_streams).
    py::gil_scoped_release unlocked;
    report = targets_.device.engine().step(call);
  }
  uploaded_ = true;
  device_counts_ = device_counts_ || report.queued;
  if (report.nonfinite < 0) {
    if (!report.queued) ++counts_.step;
    return true;
  }
  ++counts_.skipped;
  if (list_hyper_.on_nonfinite == OnNonfinite::raise) {
    PyErr_SetString(PyExc_FloatingPointError,
                    (grad_arg(report.nonfinite).text() + " has a NaN or an infinity").c_str());
    throw py::error_already_set();
  }
  return false;
}

void register_stepper(py::module_& m) {
  m.def(
      "check_targets",
      [](const Arrays& arrays, const std::string& role, const py::object& names) {
        for (size_t i = 0; i < arrays.size(); ++i) {
          const ArgName at{role, role == "param" ? -1 : py::ssize_t(i), names};
          require_target(read_array(arrays[i], at, RequiresGrad::allow), at);
        }
      },
      py::arg("arrays"), py::arg("role"), py::arg("names") = py::none(),
      "Raise what an optimizer would raise of arrays it cannot write to.");
  using States = py::typing::List<Arrays>;
  py::class_<Stepper>(m, "Stepper", "One optimizer's arrays and hyper-parameters.",
                      collectable<Stepper>())
      .def(py::init<const std::string&, Arrays, States, std::vector<int64_t>, py::object, std::string,
                    std::string, bool>(),
           py::arg("rule"), py::arg("params"), py::arg("states"), py::arg("group_sizes"),
           py::arg("names") = py::none(), py::arg("param_role") = "params",
           py::arg("grad_role") = "grads", py::arg("persistent") = false,
           "Keep the lists: one of arrays to step and, for each of the rule's states, one as long.\n"
           "Arrays replaced in them later are noticed. Messages call an array names(role, index).")
      .def("set_hyper", &Stepper::set_hyper, py::arg("group"), py::arg("values"),
           "The hyper-parameters of one group, by its index; what is not named has its default.")
      .def("set_list_hyper", &Stepper::set_list_hyper, py::arg("values"),
           "Those that act on the whole list (LIST_HYPER): clipping by norm and the non-finite policy.")
      .def_property_readonly("on_device", &Stepper::on_device,
                             "Whether a device keeps hyper-parameters and counts of its own.")
      .def("check", &Stepper::check, "Raise what a step would raise of the targets, else return.")
      .def("require_idle", &Stepper::require_idle, "Raise RuntimeError in the middle of a step.")
      .def("step", &Stepper::step, py::arg("grads"), py::arg("grad_names") = py::none(),
           "Step all arrays, in place; False if skipped for a non-finite gradient, as far as the host\n"
           "can know. Every check comes before the first write. `grad_names` serve as `names` do.")
      .def_property(
          "step_count", [](Stepper& s) { return s.counts().step; },
          [](Stepper& s, int64_t n) { s.set_counts({n, s.counts().skipped}); })
      .def_property(
          "skipped_steps", [](Stepper& s) { return s.counts().skipped; },
          [](Stepper& s, int64_t n) { s.set_counts({s.counts().step, n}); });
}

}  // namespace fastopt::bind
