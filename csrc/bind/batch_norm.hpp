// BatchNorm: reads and checks the arrays and calls the engine. Options have been checked in
// python/fastopt/_batch_norm/.
#pragma once

#include <pybind11/numpy.h>

#include <optional>
#include <tuple>

#include "bind/call_device.hpp"
#include "bind/channels.hpp"

namespace fastopt::bind {

using DoubleArray = py::array_t<double, py::array::c_style | py::array::forcecast>;
using MomentsTuple = std::tuple<double, DoubleArray, DoubleArray>;  // count, means, squared deviations
using SumsTuple = std::tuple<DoubleArray, DoubleArray>;             // of dy, of dy (x - mean)

struct BatchNormOptions {
  bool evaluate;
  // Weights of running statistics; without them, they are the average over all batches.
  std::optional<double> old_weight, new_weight;
  bool unbiased;
  bool single_value;  // training with one value per channel is allowed
  double eps;
  int axis;
  bool relu;
};

// What the forward pass saves for the backward pass.
struct BatchNormSaved {
  py::object x, gamma, beta;
  bool overwritten = false;  // x was overwritten by out
  bool residual;
  int axis;
  Layout layout;  // of x
  DType dtype;
  double count;  // of values per channel behind the statistics; 0 after evaluation
  int64_t channels;
  Place place;
  py::object stream;       // keeps the stream alive that the memory is freed on
  EngineBuffer numbers;    // four per channel
  EngineBuffer relu_mask;  // one bit per element

  void used_by(const CallDevice& device) {
    place = device.place();
    stream = device.stream_object();
    numbers.used_on(place);
    relu_mask.used_on(place);
  }

  void forget_x() {
    overwritten = true;
    x = py::none();
  }

  template <class F>
  void each_object(F&& f) const {
    f(x), f(gamma), f(beta), f(stream);
  }

  double* column(int k) const { return numbers.data<double>() + k * channels; }
  double* mean() const { return column(0); }
  double* var() const { return column(1); }
  double* invstd() const { return column(2); }
  double* scale() const { return column(3); }
};

// One number per channel in engine memory, copied from or to the host.
class ChannelBuffer {
 public:
  ChannelBuffer(const Place& place, int64_t count);                     // uninitialized
  ChannelBuffer(const Place& place, DoubleArray& host, int64_t count);  // a copy of `host`
  double* data() const { return buffer_.data<double>(); }
  DoubleArray to_host() const;

 private:
  Place place_;
  int64_t count_;
  EngineBuffer buffer_;
};

// An array of x's shape and dtype; for None, an Array without an owner.
Array read_like_x(py::handle object, const char* role, const Array& x);

// Checks that there is one number per channel.
void require_statistics(const DoubleArray& a, const char* role, int64_t channels);

SumsTuple batch_norm_reduce(const py::object& dy, BatchNormSaved& saved);
void batch_norm_backward(const py::object& dy, BatchNormSaved& saved, const py::object& out,
                         const py::object& dgamma, const py::object& dbeta, const py::object& dresidual,
                         std::optional<SumsTuple> sums);

void register_batch_norm(py::module_& m);

}  // namespace fastopt::bind
