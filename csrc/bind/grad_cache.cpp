#include "bind/grad_cache.hpp"

#include <algorithm>
#include <utility>

#include "bind/array_library.hpp"

namespace fastopt::bind {
namespace {

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

// Whether reading this gradient may be skipped in later steps: its memory can be compared without
// Python code, and it is on the stream of the call, so that nothing has to be waited for.
bool is_cacheable(const Array& grad, bool same_layout, const CallDevice& device) {
  const bool comparable = device.exchange() ? same_layout : library_of(grad.owner).is_cupy;
  return comparable && grad.device != kHost && device.is_of_library(grad.owner);
}

}  // namespace

bool holds(PyObject* list, PyObject* const* objects, size_t n) {
  return size_t(PyList_GET_SIZE(list)) == n &&
         std::equal(objects, objects + n, PySequence_Fast_ITEMS(list));
}

void GradCache::reset(size_t count) {
  grads_.resize(count);
  walks_.resize(count);
  last_data_.assign(count, nullptr);
  last_grads_.assign(count, nullptr);
  refs_.assign(count, {});
  all_refs_ = false;
}

// CuPy's arrays, which have no exchange, never move.
bool GradCache::unmoved(size_t i, py::handle grad, const GradContext& c) {
  const Exchange* const exchange = c.device.exchange();
  const TargetInfo& param = c.params[i];
  return !exchange || has_layout(*exchange, grad, c.tensors[i].grad.data, param.dtype, param.layout);
}

bool GradCache::same_grads_as_last_step(py::handle grads, const GradContext& c) const {
  const bool same = all_refs_ && dead_refs_.empty() && PyList_CheckExact(grads.ptr()) &&
                    holds(grads.ptr(), last_grads_.data(), last_grads_.size());
  if (!same || !c.device.exchange()) return same;
  for (size_t i = 0; i < last_grads_.size(); ++i)
    if (!unmoved(i, last_grads_[i], c)) return false;
  return true;
}

bool GradCache::is_cached(size_t i, py::handle grad, const GradContext& c) const {
  return refs_[i] && refers_to(refs_[i], grad) && unmoved(i, grad, c);
}

void GradCache::store(size_t i, py::handle object, Array&& grad, bool flat, bool same_layout,
                      const GradContext& c) {
  reread_.push_back(i);
  grads_[i] = std::move(grad);
  const Array& g = grads_[i];
  if (!flat) walks_[i] = std::make_unique<Walk>(walk_like(c.params[i].layout, g));
  c.tensors[i].grad = {g.data, flat ? nullptr : walks_[i].get()};
  // Most gradients come once only, and need no reference.
  const bool again = std::exchange(last_grads_[i], object.ptr()) == object.ptr();
  const bool caches = again && is_cacheable(g, same_layout, c.device);
  refs_[i] = caches ? py::object(py::weakref(object, on_ref_death_)) : py::object();
}

bool GradCache::finish(const GradContext& c) {
  bool same = true;
  for (const size_t i : reread_) {
    c.device.wait_for(grads_[i]);
    const bool walks = c.tensors[i].grad.walk;
    const void* const data = walks || grads_[i].device == kHost ? nullptr : grads_[i].data;
    same = same && !walks && data == last_data_[i];
    last_data_[i] = data;
  }
  all_refs_ = std::all_of(refs_.begin(), refs_.end(), [](const py::object& o) { return bool(o); });
  if (!dead_refs_.empty()) dead_refs_.attr("clear")();  // every reference has just been seen alive
  return same;
}

void GradCache::release() {
  for (const size_t i : reread_) grads_[i].owner = {};
  reread_.clear();
}

}  // namespace fastopt::bind
