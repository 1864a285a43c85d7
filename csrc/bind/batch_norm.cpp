#include "bind/batch_norm.hpp"

#include <pybind11/stl.h>

#include "bind/collect.hpp"
#include "core/float_mode.hpp"
#include "rules/moments.hpp"

namespace fastopt::bind {
namespace {

// Releases the GIL, because the copy may wait for the device, and the device for Python.
DoubleArray copied_to_host(Place place, const double* from, int64_t count) {
  DoubleArray host(count);
  double* const to = host.mutable_data();
  const Backend& engine = engine_of(place);
  py::gil_scoped_release unlocked;
  engine.copy_to_host(place, to, from, count * int64_t(sizeof(double)));
  return host;
}

}  // namespace

Array read_like_x(py::handle object, const char* role, const Array& x) {
  return object.is_none() ? Array{} : read_like(object, {role}, x, {"x"});
}

void require_statistics(const DoubleArray& a, const char* role, int64_t channels) {
  if (a.ndim() == 1 && a.shape(0) == channels) return;
  throw py::value_error(std::string(role) + " has shape " + tuple_text(a.shape(), int(a.ndim())) +
                        ", expected (" + std::to_string(channels) + ",)");
}

ChannelBuffer::ChannelBuffer(const Place& place, int64_t count)
    : place_(place), count_(count), buffer_(place, count * int64_t(sizeof(double)), Lifetime::call) {}

ChannelBuffer::ChannelBuffer(const Place& place, DoubleArray& host, int64_t count)
    : ChannelBuffer(place, count) {
  engine_of(place).copy_to_device(place, data(), host.data(), count * int64_t(sizeof(double)));
}

DoubleArray ChannelBuffer::to_host() const { return copied_to_host(place_, data(), count_); }

namespace {

// One bit per element, rounded up for an engine that stores them by full vectors.
int64_t relu_mask_bytes(const ChannelSpace& space) {
  return (space.mask_rows() * space.mask_row_bytes() / 512 + 2) * 512;
}

struct ForwardArrays {
  Array x, y, residual;
  int axis = 0;
  PerChannelArray gamma, beta, mean, var;

  int64_t channels() const { return x.shape[axis]; }

  void check_overlaps(bool evaluate) const {
    Overlaps written;
    const auto write = [&](const Array& a, const char* role) {
      if (!a.owner) return;
      require_target(a, {role});
      written.write(a, {role});
    };
    const auto read = [&](const Array& a, const char* role) {
      if (a.owner) written.check_read(a, {role});
    };
    write(y, "out");
    if (!evaluate) {
      write(mean.array, "running_mean");
      write(var.array, "running_var");
    }
    written.check_writes();
    written.check_input(x, {"x"}, y);
    if (residual.owner) written.check_input(residual, {"residual"}, y);
    read(gamma.array, "gamma");
    read(beta.array, "beta");
    if (evaluate) {
      read(mean.array, "running_mean");
      read(var.array, "running_var");
    }
  }

  CallDevice device() {
    return resolve_device({{&x, "x"},
                           {&y, "out"},
                           {&residual, "residual"},
                           {&gamma.array, "gamma"},
                           {&beta.array, "beta"},
                           {&mean.array, "running_mean"},
                           {&var.array, "running_var"}});
  }

  void fill(BatchNormForward& call) const {
    call.space =
        read_space(axis, {{x, "x", call.x}, {residual, "residual", call.residual}, {y, "out", call.y}});
    call.dtype = x.dtype;
    call.gamma = gamma.vector;
    call.beta = beta.vector;
  }
};

ForwardArrays read_forward(const py::object& x, const py::object& out, const py::object& gamma,
                           const py::object& beta, const py::object& running_mean,
                           const py::object& running_var, const py::object& residual, int axis) {
  ForwardArrays a;
  a.x = read_array(x, {"x"});
  a.axis = read_axis(axis, a.x);
  a.y = read_like(out, {"out"}, a.x, {"x"});
  a.residual = read_like_x(residual, "residual", a.x);
  a.gamma = read_per_channel(gamma, "gamma", a.channels());
  a.beta = read_per_channel(beta, "beta", a.channels());
  a.mean = read_per_channel(running_mean, "running_mean", a.channels());
  a.var = read_per_channel(running_var, "running_var", a.channels());
  return a;
}

Running running_of(const BatchNormOptions& o, const ForwardArrays& a, int64_t batch) {
  const IeeeMode mode;
  const double new_weight = o.new_weight ? *o.new_weight : 1.0 / double(batch);
  return {a.mean.vector, a.var.vector, o.old_weight ? *o.old_weight : 1.0 - new_weight, new_weight,
          o.unbiased};
}

void require_enough(const BatchNormOptions& o, double count, const Array& x) {
  if (count == 0.0 && x.size() > 0)
    throw py::value_error("moments.n is 0, but x has shape " + tuple_text(x.shape, x.ndim) +
                          "; expected the statistics of at least one value");
  if (o.evaluate || o.single_value || count != 1.0) return;
  throw py::value_error("x has shape " + tuple_text(x.shape, x.ndim) +
                        ", expected more than one value per channel when training; "
                        "pass single_value=\"zero_var\" to use variance 0");
}

std::unique_ptr<BatchNormSaved> forward(const BatchNormOptions& o, const py::object& x,
                                        const py::object& out, const py::object& gamma,
                                        const py::object& beta, const py::object& running_mean,
                                        const py::object& running_var, const py::object& residual,
                                        std::optional<MomentsTuple> moments, int64_t batch) {
  ForwardArrays a = read_forward(x, out, gamma, beta, running_mean, running_var, residual, o.axis);
  const int64_t channels = a.channels();
  a.check_overlaps(o.evaluate);

  const CallDevice device = a.device();
  BatchNormForward call{};
  call.place = device.place();
  a.fill(call);
  call.running = running_of(o, a, batch);
  call.evaluate = o.evaluate;
  call.eps = o.eps;
  call.relu = o.relu;
  const double count = moments ? std::get<0>(*moments) : double(call.space.count());
  require_enough(o, count, a.x);
  std::optional<ChannelBuffer> given_mean, given_m2;
  if (moments) {
    auto& [n, mean, m2] = *moments;
    require_statistics(mean, "moments.mean", channels);
    require_statistics(m2, "moments.m2", channels);
    given_mean.emplace(call.place, mean, channels);
    given_m2.emplace(call.place, m2, channels);
    call.given_stats = {given_mean->data(), given_m2->data(), n};
  }

  std::unique_ptr<BatchNormSaved> saved(new BatchNormSaved{
      .x = x,
      .gamma = gamma,
      .beta = beta,
      .residual = !residual.is_none(),
      .axis = a.axis,
      .layout = Layout(a.x),
      .dtype = a.x.dtype,
      .count = o.evaluate ? 0.0 : count,
      .channels = channels,
      .place = call.place,
      .stream = device.stream_object(),
      .numbers = EngineBuffer(call.place, 4 * channels * int64_t(sizeof(double)), Lifetime::persistent),
      .relu_mask = {}});
  if (same_elements(a.y, a.x)) saved->forget_x();
  if (o.relu)
    saved->relu_mask = EngineBuffer(call.place, relu_mask_bytes(call.space), Lifetime::persistent);
  call.relu_mask = saved->relu_mask.data<uint8_t>();
  call.mean = saved->mean();
  call.var = saved->var();
  call.invstd = saved->invstd();
  call.scale = saved->scale();
  py::gil_scoped_release unlocked;
  device.engine().batch_norm_forward(call);
  return saved;
}

MomentsTuple moments(const py::object& x_object, int axis) {
  Array x = read_array(x_object, {"x"});
  BatchMoments call{};
  const int at = read_axis(axis, x);
  const CallDevice device = resolve_device({{&x, "x"}});
  call.place = device.place();
  call.space = read_space(at, {{x, "x", call.x}});
  call.dtype = x.dtype;
  const ChannelBuffer mean(call.place, x.shape[at]), m2(call.place, x.shape[at]);
  call.out = {mean.data(), m2.data(), double(call.space.count())};
  {
    py::gil_scoped_release unlocked;
    device.engine().batch_moments(call);
  }
  return {call.out.count, mean.to_host(), m2.to_host()};
}

// Joins into the first part, whose arrays are copied before.
MomentsTuple join(std::vector<MomentsTuple> parts) {
  const IeeeMode mode;
  const int64_t channels = std::get<1>(parts.at(0)).size();
  for (auto& [n, mean, m2] : parts) {
    require_statistics(mean, "moments.mean", channels);
    require_statistics(m2, "moments.m2", channels);
    mean = DoubleArray(channels, mean.data());
    m2 = DoubleArray(channels, m2.data());
  }
  walk_tree(int64_t(parts.size()), [&](int64_t left, int64_t right, int64_t) {
    auto& [n, mean, m2] = parts[left];
    auto& [n_b, mean_b, m2_b] = parts[right];
    if (n_b == 0.0) return;
    const Weights w = weights_of(n, n_b);
    for (int64_t c = 0; c < channels; ++c)
      JoinMoments::join(mean.mutable_data()[c], m2.mutable_data()[c], mean_b.at(c), m2_b.at(c), w);
    n += n_b;
  });
  return parts[0];
}

}  // namespace

void register_batch_norm(py::module_& m) {
  py::class_<BatchNormOptions>(m, "BatchNormOptions", "The options of a forward pass, checked before.")
      .def(
          py::init<bool, std::optional<double>, std::optional<double>, bool, bool, double, int, bool>(),
          py::arg("evaluate"), py::arg("old_weight"), py::arg("new_weight"), py::arg("unbiased"),
          py::arg("single_value"), py::arg("eps"), py::arg("axis"), py::arg("relu"),
          "Without old_weight and new_weight, running statistics are the average of all batches.");

  const auto column = [](double* (BatchNormSaved::*which)() const) {
    return
        [which](const BatchNormSaved& s) { return copied_to_host(s.place, (s.*which)(), s.channels); };
  };
  py::class_<BatchNormSaved>(m, "BatchNormSaved", "What a forward pass leaves for the backward pass.",
                             collectable<BatchNormSaved>())
      .def_property_readonly("mean", column(&BatchNormSaved::mean))
      .def_property_readonly("var", column(&BatchNormSaved::var))
      .def_property_readonly("invstd", column(&BatchNormSaved::invstd))
      .def_readonly("x", &BatchNormSaved::x, "None if a pass has overwritten it.")
      .def_readonly("gamma", &BatchNormSaved::gamma)
      .def_readonly("beta", &BatchNormSaved::beta)
      .def_readonly("has_residual", &BatchNormSaved::residual)
      .def_property_readonly("has_relu", [](const BatchNormSaved& s) { return bool(s.relu_mask); })
      .def_readonly("count", &BatchNormSaved::count);

  m.def("batch_norm_forward", forward, py::arg("options"), py::arg("x"), py::arg("out"),
        py::arg("gamma"), py::arg("beta"), py::arg("running_mean"), py::arg("running_var"),
        py::arg("residual"), py::arg("moments"), py::arg("batch"),
        "Normalize x into out, with its own statistics or those of `moments`.");
  m.def("batch_norm_backward", batch_norm_backward, py::arg("dy"), py::arg("saved"), py::arg("out"),
        py::arg("dgamma"), py::arg("dbeta"), py::arg("dresidual"), py::arg("sums"),
        "Write the gradients, with the sums over x and dy or those given.");
  m.def(
      "batch_norm_overwrites",
      [](py::handle dy, py::handle out) {
        const Array input = read_array(dy, {"dy"});
        return same_elements(read_array(out, {"out"}), input);
      },
      py::arg("dy"), py::arg("out"), "Whether a backward pass into out writes over dy.");
  m.def("batch_norm_reduce", batch_norm_reduce, py::arg("dy"), py::arg("saved"),
        "The sums of dy and of dy (x - mean), channel by channel.");
  m.def("batch_moments", moments, py::arg("x"), py::arg("axis"),
        "Count, means and sums of squared deviations, channel by channel.");
  m.def("batch_moments_join", join, py::arg("parts"), "Those of all parts together.");
}

}  // namespace fastopt::bind
