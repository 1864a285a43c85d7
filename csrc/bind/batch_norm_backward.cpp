#include "bind/batch_norm.hpp"

namespace fastopt::bind {
namespace {

// What a reduction and a complete backward pass have in common.
BatchNormBackward backward_call(const BatchNormSaved& s, const Place& place) {
  BatchNormBackward call{};
  call.place = place;
  call.dtype = s.dtype;
  call.mean = s.mean();
  call.invstd = s.invstd();
  call.scale = s.scale();
  call.count = s.count;
  call.relu_mask = s.relu_mask.data<uint8_t>();
  return call;
}

// The device of a call's arrays, which must be that of the saved statistics. Empty arrays have none.
CallDevice resolve_device(BatchNormSaved& s,
                          std::initializer_list<std::pair<Array*, const char*>> arrays) {
  CallDevice device = bind::resolve_device(arrays);
  if (device.empty()) return CallDevice(s.place);
  if (device.place().device != s.place.device)
    throw py::value_error("x is on another device than in the forward pass");
  s.used_by(device);
  return device;
}

Array read_x(const BatchNormSaved& s) {
  if (s.overwritten)
    throw py::value_error("x was overwritten by an earlier pass with out=x, but backward needs it");
  Array x = read_array(s.x, {"x"}, RequiresGrad::allow);
  if (x.dtype != s.dtype || !s.layout.is_of(x))
    throw py::value_error(
        "x was changed in shape, layout or dtype since the forward pass; backward needs it unchanged");
  return x;
}

}  // namespace

SumsTuple batch_norm_reduce(const py::object& dy_object, BatchNormSaved& s) {
  Array x = read_x(s), dy = read_like(dy_object, {"dy"}, x, {"x"});
  const CallDevice device = resolve_device(s, {{&x, "x"}, {&dy, "dy"}});
  BatchNormBackward call = backward_call(s, device.place());
  call.space = read_space(s.axis, {{x, "x", call.x}, {dy, "dy", call.dy}});
  const ChannelBuffer sum(call.place, s.channels), centered(call.place, s.channels);
  call.sums = {sum.data(), centered.data()};
  {
    py::gil_scoped_release unlocked;
    device.engine().batch_norm_backward(call);
  }
  return {sum.to_host(), centered.to_host()};
}

void batch_norm_backward(const py::object& dy_object, BatchNormSaved& s, const py::object& dx_object,
                         const py::object& dgamma_object, const py::object& dbeta_object,
                         const py::object& dresidual_object, std::optional<SumsTuple> sums) {
  Array x = read_x(s), dy = read_like(dy_object, {"dy"}, x, {"x"});
  Array dx = read_like(dx_object, {"out"}, x, {"x"});
  Array dresidual = read_like_x(dresidual_object, "dresidual", x);
  PerChannelArray dgamma = read_per_channel(dgamma_object, "dgamma", s.channels);
  PerChannelArray dbeta = read_per_channel(dbeta_object, "dbeta", s.channels);
  Overlaps written;
  for (const auto& [a, role] : {std::pair(&dx, "out"),
                                {&dresidual, "dresidual"},
                                {&dgamma.array, "dgamma"},
                                {&dbeta.array, "dbeta"}}) {
    if (!a->owner) continue;
    require_target(*a, {role});
    written.write(*a, {role});
  }
  written.check_writes();
  written.check_input(x, {"x"}, dx);
  written.check_input(dy, {"dy"}, dx);
  const CallDevice device = resolve_device(s, {{&x, "x"},
                                               {&dy, "dy"},
                                               {&dx, "out"},
                                               {&dresidual, "dresidual"},
                                               {&dgamma.array, "dgamma"},
                                               {&dbeta.array, "dbeta"}});

  BatchNormBackward call = backward_call(s, device.place());
  call.space = read_space(s.axis, {{x, "x", call.x},
                                   {dy, "dy", call.dy},
                                   {dx, "out", call.dx},
                                   {dresidual, "dresidual", call.dresidual}});
  call.dgamma = dgamma.vector;
  call.dbeta = dbeta.vector;
  if (sums) {
    require_statistics(std::get<0>(*sums), "sums.dy", s.channels);
    require_statistics(std::get<1>(*sums), "sums.dy_centered", s.channels);
  }
  const auto column = [&](auto* given) {
    return given ? ChannelBuffer(call.place, *given, s.channels)
                 : ChannelBuffer(call.place, s.channels);
  };
  const ChannelBuffer dy_sum = column(sums ? &std::get<0>(*sums) : nullptr);
  const ChannelBuffer centered = column(sums ? &std::get<1>(*sums) : nullptr);
  call.sums = {dy_sum.data(), centered.data()};
  call.sums_given = sums.has_value();
  {
    py::gil_scoped_release unlocked;
    device.engine().batch_norm_backward(call);
  }
  if (same_elements(dx, x)) s.forget_x();
}

}  // namespace fastopt::bind
