// The arrays of a Stepper: parameters and states, looked at again in every step, and gradients.
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

bool refers_to(py::handle weak, py::handle object) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* target = nullptr;
  PyWeakref_GetRef(weak.ptr(), &target);
  Py_XDECREF(target);
  return target == object.ptr();
#else
  return PyWeakref_GET_OBJECT(weak.ptr()) == object.ptr();
#endif
}

bool is_16_bit(DType t) { return t == DType::float16 || t == DType::bfloat16; }

// Whether a list holds these very objects, by their addresses alone.
bool holds(PyObject* list, PyObject* const* objects, size_t n) {
  return size_t(PyList_GET_SIZE(list)) == n &&
         std::equal(objects, objects + n, PySequence_Fast_ITEMS(list));
}

}  // namespace

// ---- parameters and state ----

// Whether the lists hold the very objects they held.
bool Stepper::are_held() const {
  static_assert(sizeof(py::object) == sizeof(PyObject*));
  const auto* const owners = reinterpret_cast<PyObject* const*>(owners_.data());
  const size_t n = tensors_.size();
  bool all = holds(params_.ptr(), owners, n);
  for (int k = 0; k < rule_.slots; ++k)
    all = all && holds(PyList_GET_ITEM(states_.ptr(), k), owners + size_t(k + 1) * n, n);
  return all;
}

// Whether every parameter and state array lies where it lay, in the type and layout it had.
bool Stepper::unchanged() {
  const int64_t n = int64_t(tensors_.size());
  if (!checked_ || int64_t(params_.size()) != n) return false;
  if (all_keep_ && are_held()) return true;
  const ArgName anywhere{param_role_};
  // The list is asked for its length each time: reading an array may run Python code.
  const auto same = [&](PyObject* list, int64_t i, int64_t target) {
    if (PyList_GET_SIZE(list) != n) return false;
    const auto object = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(list, i));
    const bool held = object.is(owners_[target]);
    const Known& was = known_[target];
    if (const Library library = library_of(object);
        held && (library.is_cupy || library.dlpack_exchange))
      return library.is_cupy ||
             has_layout(*library.dlpack_exchange, object, was.data, was.dtype, was.layout);
    const Array a = read_array(object, anywhere, RequiresGrad::allow);
    return a.data == was.data && a.dtype == was.dtype && a.writable && was.layout.is_of(a);
  };
  for (int64_t i = 0; i < n; ++i) {
    if (!same(params_.ptr(), i, i)) return false;
    for (int k = 0; k < rule_.slots; ++k)
      if (!same(PyList_GET_ITEM(states_.ptr(), k), i, (k + 1) * n + i)) return false;
  }
  return true;
}

void Stepper::check_target(int64_t i, std::vector<Storage>& storages) {
  const auto keep = [&](Array& a, const ArgName& arg, int column) {
    const size_t target = size_t(column) * tensors_.size() + size_t(i);
    require_target(a, arg);
    overlaps_.write(a, arg);
    device_.add(a, arg);
    known_[target] = {a.data, a.dtype, Layout(a)};
    owners_[target] = std::move(a.owner);
    return a.data;
  };
  Array param = read_array(params_[i], param_arg(i), RequiresGrad::allow);
  StepTensor& t = tensors_[i];
  t.param = keep(param, param_arg(i), 0);
  t.size = param.size();
  const Layout layout(param);
  bool wide = false;
  for (int k = 0; k < rule_.slots; ++k) {
    const ArgName at = state_arg(k, i);
    Array state = read_array(py::list(states_[k])[i], at, RequiresGrad::allow);
    require_shape(state, at, param, param_arg(i));
    const bool this_wide = is_16_bit(param.dtype) && state.dtype == DType::float32;
    if (!this_wide) require_dtype(state, at, param, param_arg(i));
    if (k > 0 && this_wide != wide)
      throw py::type_error(at.text() + " has dtype " + name_of(state.dtype) + ", unlike " +
                           state_arg(0, i).text());
    wide = this_wide;
    t.state[k] = keep(state, at, k + 1);
    if (t.size > 0 && !same_order(layout, int64_t(bytes_of(param.dtype)), state))
      throw py::value_error(at.text() + " has strides " + tuple_text(state.strides, state.ndim) +
                            ", but " + param_arg(i).text() + " has " +
                            tuple_text(param.strides, param.ndim) +
                            ": their elements must have the same order in memory");
  }
  storages.push_back(storage_of(param.dtype, wide));
}

// A run ends where the group or the storage changes.
void Stepper::cut_runs(const std::vector<Storage>& storages) {
  runs_.clear();
  int64_t i = 0;
  for (size_t group = 0; group < group_sizes_.size(); ++group)
    for (int64_t left = group_sizes_[group]; left > 0; --left, ++i) {
      const bool fresh = left == group_sizes_[group] || storages[i] != storages[i - 1];
      if (fresh) runs_.push_back({storages[i], &hypers_[group], &tensors_[i], 0});
      ++runs_.back().count;
    }
}

void Stepper::look_at_targets(std::vector<Storage>& storages) {
  const int64_t n = int64_t(params_.size());
  const int64_t made_with = std::accumulate(group_sizes_.begin(), group_sizes_.end(), int64_t{0});
  if (n != made_with)
    throw py::value_error(param_role_ + " has " + std::to_string(n) +
                          " arrays, but the optimizer was created with " + std::to_string(made_with));
  tensors_.resize(n);
  known_.resize((1 + rule_.slots) * n);
  owners_.resize((1 + rule_.slots) * n);
  for (int k = 0; k < rule_.slots; ++k)
    if (int64_t(py::len(states_[k])) != n)
      throw py::value_error(std::string(rule_.states[k]) + " has " +
                            std::to_string(py::len(states_[k])) + " arrays, but " + param_role_ +
                            " has " + std::to_string(n));
  for (int64_t i = 0; i < n; ++i) check_target(i, storages);
  overlaps_.check_writes();
}

// What is refused changes nothing: with the old arrays back, an engine's memory of them, of which a
// graph may know the address, is there still.
void Stepper::check_targets() {
  known_counts();  // before they are forgotten
  std::vector<Storage> storages;
  Targets before = std::exchange(static_cast<Targets&>(*this), {});
  try {
    look_at_targets(storages);
  } catch (...) {
    static_cast<Targets&>(*this) = std::move(before);
    throw;
  }
  checked_ = false;
  plan_.reset();
  all_keep_ = std::all_of(owners_.begin(), owners_.end(),
                          [](const py::object& owner) { return library_of(owner).is_cupy; });
  cut_runs(storages);
  const size_t n = tensors_.size();
  grads_.resize(n);
  walks_.resize(n);
  grads_before_.assign(n, nullptr);
  last_.assign(n, nullptr);
  seen_.assign(n, {});
  all_seen_ = false;
  checked_ = true;
}

// ---- gradients ----

// A tuple of our own: reading an array may run Python code, which may change the user's list, and so
// may another thread while the step goes on without the lock.
py::tuple Stepper::tuple_of(py::handle grads) const {
  if (!PyList_Check(grads.ptr()) && !PyTuple_Check(grads.ptr()))
    throw py::type_error(grad_role_ + " has type " + type_name(grads) +
                         ", expected a list or tuple of arrays");
  auto items = py::reinterpret_steal<py::tuple>(PySequence_Tuple(grads.ptr()));
  if (!items) throw py::error_already_set();
  if (items.size() != tensors_.size())
    throw py::value_error(grad_role_ + " has " + std::to_string(items.size()) + " arrays, but " +
                          param_role_ + " has " + std::to_string(tensors_.size()));
  return items;
}

// Whether this is the very object of the step before, and of a kind that tells where it lies.
bool Stepper::is_known(int64_t i, py::handle grad) const {
  return seen_[i] && refers_to(seen_[i], grad);
}

// Whether a known gradient lies where it lay. CuPy's never move.
bool Stepper::lies_there(int64_t i, py::handle grad) const {
  const Known& param = known_[i];
  const Exchange* const exchange = device_.exchange();
  return !exchange || has_layout(*exchange, grad, tensors_[i].grad.data, param.dtype, param.layout);
}

// Whether this is a list of gradients as before and nothing else: then there is nothing to read, and no
// Python code that could change it. While all live that were seen, their addresses tell.
bool Stepper::are_as_before(py::handle grads) const {
  const size_t n = tensors_.size();
  const bool same = all_seen_ && gone_.empty() && PyList_CheckExact(grads.ptr()) &&
                    holds(grads.ptr(), last_.data(), n);
  if (!same || !device_.exchange()) return same;
  for (size_t i = 0; i < n; ++i)
    if (!lies_there(int64_t(i), last_[i])) return false;
  return true;
}

void Stepper::read_grad(int64_t i, py::handle grad) {
  const Known& param = known_[i];
  Array& g = grads_[i];
  const ArgName at = grad_arg(i);
  g = read_array(grad, at, RequiresGrad::allow);
  const bool twin = g.dtype == param.dtype && param.layout.is_of(g);
  if (!twin) {  // slower, and with all there is to say
    const Array p = read_array(params_[i], param_arg(i), RequiresGrad::allow);
    require_shape(g, at, p, param_arg(i));
    require_dtype(g, at, p, param_arg(i));
    if (!param.layout.is_of(p)) {  // one of CuPy's was given another shape: all are to be read again
      checked_ = false;
      return;
    }
  }
  overlaps_.check_read(g, at);
  const int device = device_.place().device;
  if (g.device == kUnknownDevice && grads_before_[i] == g.data) g.device = device;
  if (g.device != device) device_.add(g, at);
  const int64_t itemsize = int64_t(bytes_of(param.dtype));
  const bool flat = twin || tensors_[i].size <= 1 || same_order(param.layout, itemsize, g);
  if (!flat) walks_[i] = std::make_unique<Walk>(walk_like(param.layout, g));
  tensors_[i].grad = {g.data, flat ? nullptr : walks_[i].get()};
  const bool came_twice = last_[i] == grad.ptr();  // most come once, and need no reference
  last_[i] = grad.ptr();
  const bool knows = came_twice && can_be_known(g, twin);
  seen_[i] = knows ? py::object(py::weakref(grad, note_gone_)) : py::object();
}

// Whether there is little to ask of this gradient should it come again. One of another library would
// have to be waited for in every step.
bool Stepper::can_be_known(const Array& g, bool twin) const {
  const bool tells = device_.exchange() ? twin : library_of(g.owner).is_cupy;
  return tells && g.device != kHost && device_.is_of_library(g.owner);
}

// Whether all lie where those of the step before lay, element by element.
bool Stepper::read_grads(const py::tuple& grads) {
  const auto n = int64_t(grads.size());
  all_seen_ = false;  // until all are read
  for (int64_t i = 0; i < n; ++i) {
    const py::handle grad = PyTuple_GET_ITEM(grads.ptr(), i);
    if (is_known(i, grad) && lies_there(i, grad)) continue;
    new_.push_back(i);
    read_grad(i, grad);
  }
  bool same = true;
  for (const int64_t i : new_) {
    device_.wait_for(grads_[i]);
    const bool walks = tensors_[i].grad.walk;
    const void* const data = walks || grads_[i].device == kHost ? nullptr : grads_[i].data;
    same = same && !walks && data == grads_before_[i];
    grads_before_[i] = data;
  }
  all_seen_ = std::all_of(seen_.begin(), seen_.end(), [](const py::object& o) { return bool(o); });
  if (!gone_.empty()) gone_.attr("clear")();  // all that were seen are here
  return same;
}

}  // namespace fastopt::bind
