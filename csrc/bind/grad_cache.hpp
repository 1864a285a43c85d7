// What an optimizer's step knows of its gradients, so that gradients seen before need not be read
// again.
#pragma once

#include <memory>
#include <vector>

#include "bind/array.hpp"
#include "bind/call_device.hpp"

namespace fastopt::bind {

// What a checked array looked like.
struct TargetInfo {
  const void* data = nullptr;
  DType dtype = DType::float32;
  Layout layout;
};

// The parameters that gradients belong to.
struct GradContext {
  const TargetInfo* params;
  StepTensor* tensors;  // whose `grad` is filled in
  CallDevice& device;
};

// Whether a list holds these very objects, by their addresses alone.
bool holds(PyObject* list, PyObject* const* objects, size_t n);

class GradCache {
 public:
  void reset(size_t count);

  // True if this is an exact list that holds the same gradient objects as the last step, and none has
  // moved in memory: then nothing needs to be read, and no Python code runs. Comparing addresses is
  // sufficient while every weakly referenced gradient is alive.
  bool same_grads_as_last_step(py::handle grads, const GradContext& c) const;

  // Whether gradient `i` is the very object of the last step, and has not moved in memory.
  bool is_cached(size_t i, py::handle grad, const GradContext& c) const;

  // Reading the gradients of a step: begin, store each one that is not cached, finish. `flat`: its
  // elements are in the memory order of its parameter; `same_layout`: with the same strides, too.
  void begin() { all_refs_ = false; }
  void store(size_t i, py::handle object, Array&& grad, bool flat, bool same_layout,
             const GradContext& c);
  // Waits for other streams. True if all gradients are in memory where they were in the last step,
  // element by element.
  bool finish(const GradContext& c);

  // Where gradient `i` was in the last step if on a device, else null.
  const void* last_data(size_t i) const { return last_data_[i]; }
  void forget_data() { last_data_.assign(last_data_.size(), nullptr); }

  void release();  // at the end of a step

  template <class F>
  void each_object(F&& f) const {
    for (const Array& grad : grads_) f(grad.owner);
  }

 private:
  static bool unmoved(size_t i, py::handle grad, const GradContext& c);

  std::vector<Array> grads_;    // during a step
  std::vector<size_t> reread_;  // indices of those that were not cached
  std::vector<std::unique_ptr<Walk>> walks_;
  std::vector<const void*> last_data_;
  std::vector<PyObject*> last_grads_;  // compared by address only: they may have been freed
  std::vector<py::object> refs_;       // weak references to those that came in two steps
  bool all_refs_ = false;              // there is one for every gradient
  py::list dead_refs_;                 // those of refs_ that died since all were alive
  py::object on_ref_death_ = dead_refs_.attr("append");
};

}  // namespace fastopt::bind
