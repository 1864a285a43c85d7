#include "bind/stepper.hpp"

#include <pybind11/stl.h>

#include <utility>

#include "bind/collect.hpp"

namespace fastopt::bind {

// Two threads in one optimizer would both read the old count and the old state; nor may one set what
// another computes with. One that waits for a count is waited for.
struct Stepper::Busy {
  Stepper& stepper;
  std::unique_lock<std::mutex> counting;
  explicit Busy(Stepper& s, bool counts = false) : stepper(s), counting(s.count_, std::defer_lock) {
    while (stepper.busy_.exchange(true)) {
      if (!stepper.counting_)
        throw std::runtime_error("this optimizer is being stepped by another thread");
      py::gil_scoped_release unlocked;
      const std::scoped_lock counted(stepper.count_);
    }
    if (counts) counting.lock(), stepper.counting_ = true;
  }
  ~Busy() { stepper.counting_ = false, stepper.busy_ = false; }
};

// However a step ends, it keeps no gradient.
struct Stepper::Borrowed {
  Stepper& stepper;
  ~Borrowed() {
    for (const int64_t i : stepper.new_) stepper.grads_[i].owner = {};
    stepper.new_.clear();
    stepper.device_.release_waited_streams();
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
  const Busy busy(*this);
  hypers_.at(group) = read_hyper(rule_, values);
}

// The last of them: a device that keeps its own is told at once, for a graph may be replayed next.
void Stepper::set_list_hyper(const Values& values) {
  const Busy busy(*this);
  list_hyper_ = read_hyper(rule_, values);
  if (!plan_) return;
  device_.refresh_stream();
  const Backend& engine = device_.engine();
  py::gil_scoped_release unlocked;
  engine.set_hypers(plan_.get(), call());
}

Counts Stepper::counts() {
  if (!device_counts_) return counts_;  // which may be asked for during a step
  const Busy busy(*this, true);
  return known_counts();
}

Counts Stepper::known_counts() {
  if (!plan_) return counts_;
  device_.refresh_stream();  // a graph may have been replayed on another than the last step's
  const Backend& engine = device_.engine();
  py::gil_scoped_release unlocked;  // it may wait for the device, and that for Python
  return counts_ = engine.counts(plan_.get(), device_.place());
}

void Stepper::set_counts(Counts counts) {
  const Busy busy(*this);
  counts_ = counts;
  if (plan_) device_.engine().set_counts(plan_.get(), device_.place(), counts);
}

StepCall Stepper::call() {
  return {device_.place(),  rule_index_,  runs_.data(), int64_t(runs_.size()),
          counts_.step + 1, &list_hyper_, plan_.get()};
}

// What an engine keeps for the next steps.
void Stepper::make_plan() {
  const Backend& engine = device_.engine();
  if (plan_ || !engine.make_step_plan) return;  // a host needs nothing
  plan_ = {engine.make_step_plan(call()), PlanDeleter{engine.destroy_step_plan}};
  engine.set_counts(plan_.get(), device_.place(), counts_);
}

// ---- the step ----

void Stepper::watch_targets() {
  if (!unchanged())
    check_targets();
  else if (!device_.place().on_host())
    device_.refresh_stream();
  if (persistent_) make_plan();
}

void Stepper::check() {
  const Busy busy(*this);
  watch_targets();
}

void Stepper::require_idle() { const Busy busy(*this); }

bool Stepper::step(py::handle grads, py::object grad_names) {
  const Busy busy(*this);
  grad_names_ = grad_names.is_none() ? names_ : std::move(grad_names);
  watch_targets();
  const Borrowed borrowed{*this};
  const bool as_before = are_as_before(grads);
  const py::tuple held = as_before ? py::tuple() : tuple_of(grads);
  const bool sent = std::exchange(sent_, false);
  if (!sent) grads_before_.assign(grads_before_.size(), nullptr);  // the device knows of others
  bool same = as_before || read_grads(held);
  while (!checked_) {
    watch_targets();
    same = read_grads(held);
  }
  StepCall call = this->call();
  call.same_grads = same && sent;
  StepReport report;
  {
    // Safe without the lock: on a host the buffers' owners are in owners_, held and grads_, and Busy
    // keeps every other thread out of what this call points at. On a device what is queued comes before
    // whatever the arrays' library may queue there later, on the same stream or on one that has waited
    // for it (let_go), even if it reuses their memory.
    py::gil_scoped_release unlocked;
    report = device_.engine().step(call);
  }
  sent_ = true;
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
