// The arrays of a Stepper: parameters and states, which are compared in every step, and gradients.
#include <algorithm>
#include <numeric>
#include <utility>

#include "bind/array_library.hpp"
#include "bind/stepper.hpp"

namespace fastopt::bind {
namespace {

Storage storage_of(DType param, bool wide) {
  if (!wide) return static_cast<Storage>(param);
  return param == DType::float16 ? Storage::float16_wide : Storage::bfloat16_wide;
}

bool is_16_bit(DType t) { return t == DType::float16 || t == DType::bfloat16; }

}  // namespace

// ---- parameters and state ----

// Whether the lists hold the very objects that were checked.
bool Stepper::same_objects() const {
  static_assert(sizeof(py::object) == sizeof(PyObject*));
  const auto* const owners = reinterpret_cast<PyObject* const*>(targets_.owners.data());
  const size_t n = targets_.tensors.size();
  bool all = holds(params_.ptr(), owners, n);
  for (int k = 0; k < rule_.slots; ++k)
    all = all && holds(PyList_GET_ITEM(states_.ptr(), k), owners + size_t(k + 1) * n, n);
  return all;
}

// Whether every parameter and state array has the memory, dtype and layout that were checked.
bool Stepper::targets_unchanged() {
  const int64_t n = int64_t(targets_.tensors.size());
  if (!targets_checked_ || int64_t(params_.size()) != n) return false;
  if (all_cupy_ && same_objects()) return true;
  const ArgName unnamed{param_role_};
  // The length is compared each time, because reading an array may run Python code.
  const auto same = [&](PyObject* list, int64_t i, int64_t target) {
    if (PyList_GET_SIZE(list) != n) return false;
    const auto object = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(list, i));
    const bool held = object.is(targets_.owners[target]);
    const TargetInfo& was = targets_.info[target];
    const Library library = library_of(object);
    if (held && library.is_cupy) return true;
    if (held && library.dlpack_exchange)
      return has_layout(*library.dlpack_exchange, object, was.data, was.dtype, was.layout);
    const Array a = read_array(object, unnamed, RequiresGrad::allow);
    return a.data == was.data && a.dtype == was.dtype && a.writable && was.layout.is_of(a);
  };
  for (int64_t i = 0; i < n; ++i) {
    if (!same(params_.ptr(), i, i)) return false;
    for (int k = 0; k < rule_.slots; ++k)
      if (!same(PyList_GET_ITEM(states_.ptr(), k), i, (k + 1) * n + i)) return false;
  }
  return true;
}

// A parameter and its state.
Storage Stepper::read_target(int64_t i) {
  const auto keep = [&](Array& a, const ArgName& arg, int list) {
    const size_t target = size_t(list) * targets_.tensors.size() + size_t(i);
    require_target(a, arg);
    targets_.overlaps.write(a, arg);
    targets_.device.add(a, arg);
    targets_.info[target] = {a.data, a.dtype, Layout(a)};
    targets_.owners[target] = std::move(a.owner);
    return a.data;
  };
  Array param = read_array(params_[i], param_arg(i), RequiresGrad::allow);
  StepTensor& t = targets_.tensors[i];
  t.param = keep(param, param_arg(i), 0);
  t.size = param.size();
  const Layout layout(param);
  bool wide = false;
  for (int k = 0; k < rule_.slots; ++k) {
    const ArgName arg = state_arg(k, i);
    Array state = read_array(py::list(states_[k])[i], arg, RequiresGrad::allow);
    require_shape(state, arg, param, param_arg(i));
    const bool this_wide = is_16_bit(param.dtype) && state.dtype == DType::float32;
    if (!this_wide) require_dtype(state, arg, param, param_arg(i));
    if (k > 0 && this_wide != wide)
      throw py::type_error(arg.text() + " has dtype " + name_of(state.dtype) + ", unlike " +
                           state_arg(0, i).text());
    wide = this_wide;
    t.state[k] = keep(state, arg, k + 1);
    if (t.size > 0 && !same_order(layout, int64_t(bytes_of(param.dtype)), state))
      throw py::value_error(arg.text() + " has strides " + tuple_text(state.strides, state.ndim) +
                            ", but " + param_arg(i).text() + " has " +
                            tuple_text(param.strides, param.ndim) +
                            ": their elements must have the same order in memory");
  }
  return storage_of(param.dtype, wide);
}

// A run ends where the group or the storage changes.
void Stepper::cut_runs(const std::vector<Storage>& storages) {
  runs_.clear();
  int64_t i = 0;
  for (size_t group = 0; group < group_sizes_.size(); ++group)
    for (int64_t left = group_sizes_[group]; left > 0; --left, ++i) {
      const bool fresh = left == group_sizes_[group] || storages[i] != storages[i - 1];
      if (fresh) runs_.push_back({storages[i], &hypers_[group], &targets_.tensors[i], 0});
      ++runs_.back().count;
    }
}

void Stepper::read_targets(std::vector<Storage>& storages) {
  const int64_t n = int64_t(params_.size());
  const int64_t created_with = std::accumulate(group_sizes_.begin(), group_sizes_.end(), int64_t{0});
  if (n != created_with)
    throw py::value_error(param_role_ + " has " + std::to_string(n) +
                          " arrays, but the optimizer was created with " +
                          std::to_string(created_with));
  targets_.tensors.resize(n);
  targets_.info.resize((1 + rule_.slots) * n);
  targets_.owners.resize((1 + rule_.slots) * n);
  for (int k = 0; k < rule_.slots; ++k)
    if (int64_t(py::len(states_[k])) != n)
      throw py::value_error(std::string(rule_.states[k]) + " has " +
                            std::to_string(py::len(states_[k])) + " arrays, but " + param_role_ +
                            " has " + std::to_string(n));
  for (int64_t i = 0; i < n; ++i) storages.push_back(read_target(i));
  targets_.overlaps.check_writes();
}

// If the new arrays are refused, the old ones stay in place, together with the engine's plan for them,
// whose address on the device a captured graph may contain.
void Stepper::check_targets() {
  known_counts();  // before the plan that has them is freed
  std::vector<Storage> storages;
  Targets before = std::exchange(targets_, {});
  try {
    read_targets(storages);
  } catch (...) {
    targets_ = std::move(before);
    throw;
  }
  targets_checked_ = false;
  plan_.reset();
  all_cupy_ = std::all_of(targets_.owners.begin(), targets_.owners.end(),
                          [](const py::object& owner) { return library_of(owner).is_cupy; });
  cut_runs(storages);
  grads_.reset(targets_.tensors.size());
  targets_checked_ = true;
}

// ---- gradients ----

// A tuple of our own, because reading an array may run Python code, which may change the user's list,
// and so may another thread while the step runs without the GIL.
py::tuple Stepper::tuple_of(py::handle grads) const {
  if (!PyList_Check(grads.ptr()) && !PyTuple_Check(grads.ptr()))
    throw py::type_error(grad_role_ + " has type " + type_name(grads) +
                         ", expected a list or tuple of arrays");
  auto items = py::reinterpret_steal<py::tuple>(PySequence_Tuple(grads.ptr()));
  if (!items) throw py::error_already_set();
  if (items.size() != targets_.tensors.size())
    throw py::value_error(grad_role_ + " has " + std::to_string(items.size()) + " arrays, but " +
                          param_role_ + " has " + std::to_string(targets_.tensors.size()));
  return items;
}

GradContext Stepper::grad_context() {
  return {targets_.info.data(), targets_.tensors.data(), targets_.device};
}

void Stepper::read_grad(int64_t i, py::handle grad) {
  const TargetInfo& param = targets_.info[i];
  const ArgName arg = grad_arg(i);
  Array g = read_array(grad, arg, RequiresGrad::allow);
  const bool same_layout = g.dtype == param.dtype && param.layout.is_of(g);
  if (!same_layout) {  // slower: the messages need the parameter itself
    const Array p = read_array(params_[i], param_arg(i), RequiresGrad::allow);
    require_shape(g, arg, p, param_arg(i));
    require_dtype(g, arg, p, param_arg(i));
    if (!param.layout.is_of(p)) {  // an array of CuPy's was reshaped: all must be checked again
      targets_checked_ = false;
      return;
    }
  }
  targets_.overlaps.check_read(g, arg);
  const int device = targets_.device.place().device;
  if (g.device == kUnknownDevice && grads_.last_data(i) == g.data) g.device = device;
  if (g.device != device) targets_.device.add(g, arg);
  const bool flat = same_layout || targets_.tensors[i].size <= 1 ||
                    same_order(param.layout, int64_t(bytes_of(param.dtype)), g);
  grads_.store(i, grad, std::move(g), flat, same_layout, grad_context());
}

// Whether all are in memory where those of the last step were, element by element.
bool Stepper::read_grads(const py::tuple& grads) {
  const GradContext context = grad_context();
  grads_.begin();
  for (size_t i = 0; i < grads.size(); ++i) {
    const py::handle grad = PyTuple_GET_ITEM(grads.ptr(), i);
    if (!grads_.is_cached(i, grad, context)) read_grad(int64_t(i), grad);
  }
  return grads_.finish(context);
}

}  // namespace fastopt::bind
