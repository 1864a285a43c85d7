#include "bind/stepper.hpp"

#include <pybind11/stl.h>

#include "bind/cuda_array.hpp"

namespace fastopt::bind {
namespace {

Storage storage_of(DType param, bool wide) {
  if (!wide) return static_cast<Storage>(param);
  return param == DType::float16 ? Storage::float16_wide : Storage::bfloat16_wide;
}

bool is_16_bit(DType t) { return t == DType::float16 || t == DType::bfloat16; }

}  // namespace

// Two threads in one optimizer would both read the old count and the old state; nor may one set what
// another computes with.
struct Stepper::Busy {
  std::atomic<bool>& flag;
  explicit Busy(std::atomic<bool>& f) : flag(f) {
    if (flag.exchange(true))
      throw std::runtime_error("this optimizer is being stepped by another thread");
  }
  ~Busy() { flag = false; }
};

// However a step ends, it keeps no gradient.
struct Stepper::Borrowed {
  std::vector<Array>& grads;
  ~Borrowed() {
    for (Array& g : grads) g.owner = {};
  }
};

Stepper::Stepper(const std::string& rule, py::list params, py::list states,
                 std::vector<int64_t> group_sizes, py::object names, std::string param_role,
                 std::string grad_role, bool lasting)
    : rule_(InfoTable<RuleList>::rules[rule_index(rule)]),
      rule_index_(rule_index(rule)),
      params_(std::move(params)),
      states_(std::move(states)),
      group_sizes_(std::move(group_sizes)),
      names_(std::move(names)),
      param_role_(std::move(param_role)),
      grad_role_(std::move(grad_role)),
      single_(param_role_ == "param"),
      lasting_(lasting),
      hypers_(group_sizes_.size()) {}

void Stepper::set_hyper(size_t group, const Values& values) {
  const Busy busy(busy_);
  hypers_.at(group) = read_hyper(rule_, values);
}

// The last of them: a device that keeps its own is told at once, for a graph may be replayed next.
void Stepper::set_whole(const Values& values) {
  const Busy busy(busy_);
  whole_ = read_hyper(rule_, values);
  if (!memory_) return;
  meeting_.restream();
  meeting_.engine().set_hypers(memory_.get(), call());
}

Counts Stepper::counts() {
  if (!memory_) return counts_;
  meeting_.restream();  // a graph may have been replayed on another than the last step's
  return counts_ = meeting_.engine().counts(memory_.get(), meeting_.place());
}

void Stepper::set_counts(Counts counts) {
  const Busy busy(busy_);
  counts_ = counts;
  if (memory_) meeting_.engine().set_counts(memory_.get(), meeting_.place(), counts);
}

// ---- parameters and state ----

// Whether every parameter and state array lies where it lay, in the type and layout it had.
bool Stepper::unchanged() {
  const int64_t n = int64_t(tensors_.size());
  if (!checked_ || int64_t(params_.size()) != n) return false;
  const Known* known = known_.data();
  const Where anywhere{param_role_};
  // The list is asked for its length each time: reading an array may run Python code.
  const auto same = [&](PyObject* list, int64_t i) {
    if (PyList_GET_SIZE(list) != n) return false;
    const auto object = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(list, i));
    const bool held = object.is(owners_[size_t(known - known_.data())]);
    if (held && !meeting_.place().on_host() && stays(object, known->data)) {
      ++known;
      return true;
    }
    const Array a = read_array(object, anywhere);
    const bool is =
        a.data == known->data && a.dtype == known->dtype && a.writable && known->layout.is_of(a);
    ++known;
    return is;
  };
  for (int64_t i = 0; i < n; ++i) {
    if (!same(params_.ptr(), i)) return false;
    for (int k = 0; k < rule_.slots; ++k)
      if (!same(PyList_GET_ITEM(states_.ptr(), k), i)) return false;
  }
  return true;
}

void Stepper::check_target(int64_t i, std::vector<Storage>& storages) {
  const auto keep = [&](Array& a, const Where& where) {
    require_target(a, where);
    overlaps_.write(a, where);
    meeting_.add(a, where);
    known_.push_back({a.data, a.dtype, Layout(a)});
    owners_.push_back(std::move(a.owner));
    return a.data;
  };
  Array param = read_array(params_[i], param_at(i));
  StepTensor t{};
  t.param = keep(param, param_at(i));
  t.size = param.size();
  const Layout layout(param);
  bool wide = false;
  for (int k = 0; k < rule_.slots; ++k) {
    const Where at = state_at(k, i);
    Array state = read_array(py::list(states_[k])[i], at);
    require_shape(state, at, param, param_at(i));
    const bool this_wide = is_16_bit(param.dtype) && state.dtype == DType::float32;
    if (!this_wide) require_dtype(state, at, param, param_at(i));
    if (k > 0 && this_wide != wide)
      throw py::type_error(at.text() + " has dtype " + name_of(state.dtype) + ", unlike " +
                           state_at(0, i).text());
    wide = this_wide;
    t.state[k] = keep(state, at);
    if (t.size > 0 && !same_order(layout, int64_t(bytes_of(param.dtype)), state))
      throw py::value_error(at.text() + " has strides " + tuple_text(state.strides, state.ndim) +
                            ", but " + param_at(i).text() + " has " +
                            tuple_text(param.strides, param.ndim) +
                            ": their elements must have the same order in memory");
  }
  tensors_.push_back(t);
  storages.push_back(storage_of(param.dtype, wide));
}

// A run ends where the group or the storage changes.
void Stepper::cut_runs(const std::vector<Storage>& storages) {
  runs_.clear();
  int64_t i = 0;
  for (size_t group = 0; group < group_sizes_.size(); ++group)
    for (int64_t left = group_sizes_[group]; left > 0; --left, ++i) {
      const bool fresh = left == group_sizes_[group] || storages[i] != storages[i - 1];
      if (fresh) runs_.push_back({rule_index_, storages[i], &hypers_[group], &tensors_[i], 0});
      ++runs_.back().count;
    }
}

void Stepper::check_targets() {
  checked_ = false;
  tensors_.clear();
  known_.clear();
  owners_.clear();
  overlaps_ = {};
  counts();  // before they are forgotten
  memory_.reset();
  meeting_ = {};
  const int64_t n = int64_t(params_.size());
  for (int k = 0; k < rule_.slots; ++k)
    if (int64_t(py::len(states_[k])) != n)
      throw py::value_error(std::string(rule_.states[k]) + " has " +
                            std::to_string(py::len(states_[k])) + " arrays, but " + param_role_ +
                            " has " + std::to_string(n));
  std::vector<Storage> storages;
  for (int64_t i = 0; i < n; ++i) check_target(i, storages);
  overlaps_.check_writes();
  cut_runs(storages);
  grads_.resize(n);
  walks_.resize(n);
  grads_before_.assign(n, nullptr);
  checked_ = true;
}

StepCall Stepper::call() {
  return {meeting_.place(), runs_.data(), int64_t(runs_.size()),
          counts_.step + 1, &whole_,      memory_.get()};
}

// What an engine keeps for the next steps.
void Stepper::remember() {
  const Backend& engine = meeting_.engine();
  if (memory_ || !engine.remember) return;  // a host needs nothing
  memory_ = {engine.remember(call()), engine.forget};
  engine.set_counts(memory_.get(), meeting_.place(), counts_);
}

// ---- gradients ----

void Stepper::read_grad(int64_t i, py::handle grad) {
  const size_t own = i * (1 + rule_.slots);
  const Known& param = known_[own];
  Array& g = grads_[i];
  const Where at = grad_at(i);
  g = read_array(grad, at);
  const bool twin = g.dtype == param.dtype && param.layout.is_of(g);
  if (!twin) {  // slower, and with all there is to say
    const Array p = read_array(params_[i], param_at(i));
    require_shape(g, at, p, param_at(i));
    require_dtype(g, at, p, param_at(i));
  }
  overlaps_.check_read(g, at);
  if (grads_before_[i] != g.data || g.device == kHost) meeting_.add(g, at);
  const int64_t itemsize = int64_t(bytes_of(param.dtype));
  const bool flat = twin || tensors_[i].size <= 1 || same_order(param.layout, itemsize, g);
  if (!flat) walks_[i] = std::make_unique<Walk>(walk_like(param.layout, g));
  tensors_[i].grad = {g.data, flat ? nullptr : walks_[i].get()};
}

void Stepper::read_grads(py::handle grads) {
  if (!PyList_Check(grads.ptr()) && !PyTuple_Check(grads.ptr()))
    throw py::type_error(grad_role_ + " has type " +
                         std::string(py::str(py::type::handle_of(grads).attr("__name__"))) +
                         ", expected a list or tuple of arrays");
  const int64_t n = int64_t(tensors_.size());
  // A tuple of our own: reading an array may run Python code, which may change the user's list.
  const auto items = py::reinterpret_steal<py::tuple>(PySequence_Tuple(grads.ptr()));
  if (int64_t(items.size()) != n)
    throw py::value_error(grad_role_ + " has " + std::to_string(items.size()) + " arrays, but " +
                          param_role_ + " has " + std::to_string(n));
  for (int64_t i = 0; i < n; ++i) read_grad(i, items[i]);
}

// ---- the step ----

void Stepper::watch_targets() {
  if (!unchanged())
    check_targets();
  else if (!meeting_.place().on_host())
    meeting_.restream();
  if (lasting_) remember();
}

void Stepper::check() {
  const Busy busy(busy_);
  watch_targets();
}

bool Stepper::step(py::handle grads) {
  const Busy busy(busy_);
  watch_targets();
  const Borrowed borrowed{grads_};
  read_grads(grads);
  for (size_t i = 0; i < grads_.size(); ++i) {
    meeting_.await(grads_[i]);
    grads_before_[i] = grads_[i].device == kHost ? nullptr : grads_[i].data;
  }
  const StepCall call = this->call();
  StepReport report;
  {
    // Safe without the lock: the buffers' owners are held by owners_ and grads_, and Busy keeps every
    // other thread out of what this call points at. On a device what is queued comes before whatever
    // the arrays' library may queue there later, on the same stream, even if it reuses their memory.
    py::gil_scoped_release unlocked;
    report = meeting_.engine().step(call);
  }
  if (report.nonfinite < 0) {
    if (!report.queued) ++counts_.step;
    return true;
  }
  if (!memory_) ++counts_.skipped;
  if (whole_.on_nonfinite == OnNonfinite::raise) {
    PyErr_SetString(PyExc_FloatingPointError,
                    (grad_at(report.nonfinite).text() + " has a NaN or an infinity").c_str());
    throw py::error_already_set();
  }
  return false;
}

void register_stepper(py::module_& m) {
  m.def(
      "check_targets",
      [](const Arrays& arrays, const std::string& role, const py::object& names) {
        for (size_t i = 0; i < arrays.size(); ++i) {
          const Where at{role, role == "param" ? -1 : py::ssize_t(i), names};
          require_target(read_array(arrays[i], at), at);
        }
      },
      py::arg("arrays"), py::arg("role"), py::arg("names") = py::none(),
      "Raise what an optimizer would raise of arrays it cannot write to.");
  using States = py::typing::List<Arrays>;
  py::class_<Stepper>(m, "Stepper", "One optimizer's arrays and hyper-parameters.")
      .def(py::init<const std::string&, Arrays, States, std::vector<int64_t>, py::object, std::string,
                    std::string, bool>(),
           py::arg("rule"), py::arg("params"), py::arg("states"), py::arg("group_sizes"),
           py::arg("names") = py::none(), py::arg("param_role") = "params",
           py::arg("grad_role") = "grads", py::arg("lasting") = false,
           "Keep the lists: one of arrays to step and, for each of the rule's states, one as long.\n"
           "Arrays replaced in them later are noticed. Messages use `names` and the roles.")
      .def("set_hyper", &Stepper::set_hyper, py::arg("group"), py::arg("values"),
           "The hyper-parameters of one group, by its index; what is not named has its default.")
      .def("set_whole", &Stepper::set_whole, py::arg("values"),
           "Those that act on the whole list (WHOLE): clipping by norm and the non-finite policy.")
      .def_property_readonly("on_device", &Stepper::on_device,
                             "Whether a device keeps hyper-parameters and counts of its own.")
      .def("check", &Stepper::check, "Raise what a step would raise of the targets, else return.")
      .def("step", &Stepper::step, py::arg("grads"),
           "Step all arrays, in place; False if skipped for a non-finite gradient, as far as the host\n"
           "can know. Every check comes before the first write.")
      .def_property(
          "step_count", [](Stepper& s) { return s.counts().step; },
          [](Stepper& s, int64_t n) { s.set_counts({n, s.counts().skipped}); })
      .def_property(
          "skipped_steps", [](Stepper& s) { return s.counts().skipped; },
          [](Stepper& s, int64_t n) { s.set_counts({s.counts().step, n}); });
}

}  // namespace fastopt::bind
