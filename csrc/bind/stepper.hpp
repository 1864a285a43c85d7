// One optimizer's arrays and hyper-parameters, checked once, and stepped again and again.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bind/array.hpp"
#include "bind/call_device.hpp"
#include "bind/hyper.hpp"

namespace fastopt::bind {

// Parameters and each state's arrays as they were when they were last checked, the parameters first.
struct Targets {
  struct Known {
    const void* data = nullptr;
    DType dtype = DType::float32;
    Layout layout;
  };
  std::vector<StepTensor> tensors_;
  std::vector<Known> known_;
  std::vector<py::object> owners_;
  Overlaps overlaps_;
  CallDevice device_;
};

// Ends what an engine keeps, which may wait for the device, and that for Python.
struct PlanDeleter {
  void (*destroy)(StepPlan*) = nullptr;
  void operator()(StepPlan* plan) const {
    py::gil_scoped_release unlocked;
    destroy(plan);
  }
};

class Stepper : Targets {
 public:
  // `states` holds one list for each slot of the rule, each as long as `params`; `group_sizes` cuts the
  // lists into groups. The lists are kept and looked at again in every step, so that an array replaced
  // in them is noticed. Nothing is checked before check() or the first step. One that lasts may keep
  // memory on a device from step to step.
  Stepper(const std::string& rule, py::list params, py::list states, std::vector<int64_t> group_sizes,
          py::object names, std::string param_role, std::string grad_role, bool persistent);

  void set_hyper(size_t group, const Values& values);
  void set_list_hyper(const Values& values);

  // True if stepped, false if skipped for a non-finite gradient; where a device decides, always true.
  // All is checked before the first byte is written; the count advances only after the last.
  // `grad_names` serve as `names` do, for these gradients; none: as for the parameters.
  bool step(py::handle grads, py::object grad_names);
  void check();  // all but the gradients
  void require_idle();

  // Whether a device keeps hyper-parameters and counts of its own.
  bool on_device() const { return plan_ != nullptr; }
  // On a device that has counted by itself, this waits for it.
  Counts counts();
  void set_counts(Counts counts);

  // Of what it keeps alive: collect.hpp.
  template <class F>
  void each_object(F&& f) const {
    f(params_), f(states_), f(names_), f(grad_names_);
    for (const py::object& owner : owners_) f(owner);
    for (const Array& grad : grads_) f(grad.owner);
    device_.each_object(f);
  }

 private:
  struct Busy;
  struct Borrowed;

  ArgName param_arg(int64_t i) const { return {param_role_, single_ ? -1 : i, names_}; }
  ArgName grad_arg(int64_t i) const { return {grad_role_, single_ ? -1 : i, grad_names_}; }
  ArgName state_arg(int slot, int64_t i) const {
    return {rule_.states[slot], single_ ? -1 : i, names_};
  }

  StepCall call();
  Counts known_counts();
  void make_plan();
  bool are_held() const;
  bool unchanged();
  void watch_targets();
  void check_targets();
  void look_at_targets(std::vector<Storage>& storages);
  void check_target(int64_t i, std::vector<Storage>& storages);
  void cut_runs(const std::vector<Storage>& storages);
  py::tuple tuple_of(py::handle grads) const;
  bool is_known(int64_t i, py::handle grad) const;
  bool lies_there(int64_t i, py::handle grad) const;
  bool can_be_known(const Array& g, bool twin) const;
  bool are_as_before(py::handle grads) const;
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
  bool all_keep_ = false;     // their memory where it is, for good
  std::vector<Array> grads_;  // as long as a step lasts
  std::vector<int64_t> new_;  // those that are not as before
  std::vector<std::unique_ptr<Walk>> walks_;
  std::unique_ptr<StepPlan, PlanDeleter> plan_;
  std::vector<const void*> grads_before_;  // where they lay if on a device, element by element
  bool sent_ = false;                      // to the engine, in a step that it has finished
  std::vector<PyObject*> last_;            // the objects, which may be others by now
  std::vector<py::object> seen_;           // weak references to those that came twice
  bool all_seen_ = false;
  py::list gone_;  // of seen_, those that died since all were here
  const py::object note_gone_ = gone_.attr("append");
  Counts counts_;
  bool checked_ = false;
  bool device_counts_ = false;  // may have counted by itself
  std::atomic<bool> busy_{false}, counting_{false};
  std::mutex count_;  // held by who waits for a count
};

void register_stepper(py::module_& m);

}  // namespace fastopt::bind
