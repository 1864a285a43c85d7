// The arrays and hyper-parameters of one optimizer, checked once and used in every step.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bind/array.hpp"
#include "bind/grad_cache.hpp"
#include "bind/hyper.hpp"
#include "bind/step_lock.hpp"

namespace fastopt::bind {

// The arrays to be stepped as they were when they were last checked. `info` and `owners` hold the
// parameters first, then each state's arrays.
struct Targets {
  std::vector<StepTensor> tensors;
  std::vector<TargetInfo> info;
  std::vector<py::object> owners;
  Overlaps overlaps;
  CallDevice device;
};

// Frees an engine's plan without the GIL: this may wait for the device, and the device for Python.
struct PlanDeleter {
  void (*destroy)(StepPlan*) = nullptr;
  void operator()(StepPlan* plan) const {
    py::gil_scoped_release unlocked;
    destroy(plan);
  }
};

class Stepper {
 public:
  // `states` holds one list per slot of the rule, each as long as `params`; `group_sizes` divides the
  // lists into groups. The lists are kept and compared in every step, so that an array replaced in them
  // is noticed. Nothing is checked before check() or the first step. A persistent stepper may keep
  // memory on a device from step to step.
  Stepper(const std::string& rule, py::list params, py::list states, std::vector<int64_t> group_sizes,
          py::object names, std::string param_role, std::string grad_role, bool persistent);

  void set_hyper(size_t group, const Values& values);
  void set_list_hyper(const Values& values);

  // True if stepped, false if skipped for a non-finite gradient; always true where a device decides.
  // Everything is checked before the first byte is written; the count advances after the last.
  // `grad_names` is to these gradients what `names` is to the parameters; None: the same.
  bool step(py::handle grads, py::object grad_names);
  void check();  // everything but the gradients
  void require_idle();

  // Whether a device keeps hyper-parameters and counts of its own.
  bool on_device() const { return plan_ != nullptr; }
  // Waits for the device if it counts.
  Counts counts();
  void set_counts(Counts counts);

  // All objects that this keeps alive: see collect.hpp.
  template <class F>
  void each_object(F&& f) const {
    f(params_), f(states_), f(names_), f(grad_names_);
    for (const py::object& owner : targets_.owners) f(owner);
    grads_.each_object(f);
    targets_.device.each_object(f);
  }

 private:
  struct GradReleaser;

  ArgName param_arg(int64_t i) const { return {param_role_, single_ ? -1 : i, names_}; }
  ArgName grad_arg(int64_t i) const { return {grad_role_, single_ ? -1 : i, grad_names_}; }
  ArgName state_arg(int slot, int64_t i) const {
    return {rule_.states[slot], single_ ? -1 : i, names_};
  }

  StepCall call();
  Counts known_counts();
  void make_plan();
  bool same_objects() const;
  bool targets_unchanged();
  void refresh_targets();
  void check_targets();
  void read_targets(std::vector<Storage>& storages);
  Storage read_target(int64_t i);
  void cut_runs(const std::vector<Storage>& storages);
  py::tuple tuple_of(py::handle grads) const;
  GradContext grad_context();
  bool read_grads(const py::tuple& grads);
  void read_grad(int64_t i, py::handle grad);

  const RuleInfo& rule_;
  const int rule_index_;
  py::list params_, states_;
  const std::vector<int64_t> group_sizes_;
  const py::object names_;
  py::object grad_names_;
  const std::string param_role_, grad_role_;
  const bool single_;
  const bool persistent_;

  Hyper list_hyper_;
  std::vector<Hyper> hypers_;
  std::vector<StepRun> runs_;
  Targets targets_;
  bool targets_checked_ = false;
  bool all_cupy_ = false;  // arrays whose memory never moves
  GradCache grads_;
  std::unique_ptr<StepPlan, PlanDeleter> plan_;
  bool uploaded_ = false;  // the engine has the last step's gradient addresses
  Counts counts_;
  bool device_counts_ = false;  // the device may have counted by itself
  StepMutex mutex_;
};

void register_stepper(py::module_& m);

}  // namespace fastopt::bind
