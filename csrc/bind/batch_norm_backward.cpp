#include "bind/batch_norm.hpp"
#include "cpu/engine.hpp"

namespace fastopt::bind {
namespace {

// The part of a call that a reduction and a whole backward pass have in common.
BatchNormBackward backward_call(BatchNormSaved& s) {
  BatchNormBackward call{};
  call.dtype = s.dtype;
  call.mean = s.mean();
  call.invstd = s.invstd();
  call.scale = s.scale();
  call.count = s.count;
  call.kept = s.kept.get();
  return call;
}

Array read_x(const BatchNormSaved& s) {
  if (s.overwritten)
    throw py::value_error("out was x itself, which backward needs: nothing is left to go back from");
  Array x = read_array(s.x, {"x"});
  if (x.dtype != s.dtype || !s.layout.is_of(x))
    throw py::value_error("x has another shape, layout or dtype than when it went forward");
  return x;
}

}  // namespace

SumsTuple batch_norm_reduce(const py::object& dy_object, BatchNormSaved& s) {
  const Array x = read_x(s), dy = read_like(dy_object, "dy", x);
  BatchNormBackward call = backward_call(s);
  call.space = read_space(s.axis, {{x, "x", call.x}, {dy, "dy", call.dy}});
  Numbers sum(s.channels), centred(s.channels);
  call.sums = {sum.mutable_data(), centred.mutable_data()};
  {
    py::gil_scoped_release unlocked;
    cpu::backend.batch_norm_backward(call);
  }
  return {sum, centred};
}

void batch_norm_backward(const py::object& dy_object, BatchNormSaved& s, const py::object& dx_object,
                         const py::object& dgamma, const py::object& dbeta, const py::object& dresidual,
                         std::optional<SumsTuple> sums) {
  const Array x = read_x(s), dy = read_like(dy_object, "dy", x), dx = read_like(dx_object, "out", x);
  const Array rest = read_like_if_any(dresidual, "dresidual", x);
  Overlaps written;
  require_target(dx, {"out"});
  written.write(dx, {"out"});
  written.check_writes();
  require_apart(written, dx, x, "x");
  require_apart(written, dx, dy, "dy");

  BatchNormBackward call = backward_call(s);
  call.space = rest.owner
                   ? read_space(s.axis, {{x, "x", call.x},
                                         {dy, "dy", call.dy},
                                         {dx, "out", call.dx},
                                         {rest, "dresidual", call.dresidual}})
                   : read_space(s.axis, {{x, "x", call.x}, {dy, "dy", call.dy}, {dx, "out", call.dx}});
  call.dgamma = read_per_channel(dgamma, "dgamma", s.channels).vector;
  call.dbeta = read_per_channel(dbeta, "dbeta", s.channels).vector;
  std::vector<double> own(sums ? 0 : 2 * s.channels);
  call.sums = {own.data(), own.data() + s.channels};
  if (sums)
    call.sums = {statistics(std::get<0>(*sums), "sums.dy", s.channels),
                 statistics(std::get<1>(*sums), "sums.dy_centred", s.channels)};
  call.given = sums.has_value();
  py::gil_scoped_release unlocked;
  cpu::backend.batch_norm_backward(call);
}

}  // namespace fastopt::bind
