// Dropout: forward, backward, and the mask alone.
#include "bind/dropout.hpp"

#include <memory>
#include <string>
#include <utility>

#include "bind/array.hpp"
#include "bind/call_device.hpp"
#include "bind/scalars.hpp"
#include "cpu/dropout.hpp"
#include "rules/philox.hpp"

namespace fastopt::bind {
namespace {

// ---- options ----

double read_p(py::handle p) { return read_number("p", p, {0, 1}); }
uint64_t read_seed(py::handle seed) { return read_uint("seed", seed, 64); }
uint64_t read_offset(py::handle offset) { return read_uint("offset", offset, 64); }

Scaling read_scaling(py::handle value) {
  if (py::isinstance<py::str>(value)) {
    if (!PyUnicode_CompareWithASCIIString(value.ptr(), "inverted")) return Scaling::inverted;
    if (!PyUnicode_CompareWithASCIIString(value.ptr(), "test_time")) return Scaling::test_time;
  }
  throw py::value_error("scaling must be one of 'inverted', 'test_time', got " + repr_of(value));
}

DropoutOptions read_options(py::handle training, py::handle scaling, py::handle alpha) {
  DropoutOptions o{read_scaling(scaling), read_bool("training", training), read_bool("alpha", alpha),
                   false};
  if (o.alpha && o.scaling != Scaling::inverted)
    throw py::value_error("alpha dropout needs scaling='inverted', got " + repr_of(scaling));
  return o;
}

int64_t read_axis(py::handle axis) {
  const auto whole = py::reinterpret_steal<py::object>(PyNumber_Index(axis.ptr()));
  if (!whole || PyBool_Check(axis.ptr())) {
    clear_error();
    throw py::type_error("channel_axis must be None or an integer, got " + repr_of(axis));
  }
  int overflow = 0;
  const int64_t n = PyLong_AsLongLongAndOverflow(whole.ptr(), &overflow);
  return overflow ? 0 : n;  // no array has so many axes; 0 is refused as well
}

int64_t product(const py::ssize_t* shape, int64_t begin, int64_t end) {
  int64_t n = 1;
  for (int64_t d = begin; d < end; ++d) n *= shape[d];
  return n;
}

DropoutMask read_mask(py::handle p, py::handle seed, py::handle offset, py::handle start,
                      py::handle channel_axis, const py::ssize_t* shape, int ndim) {
  DropoutMask mask{
      read_p(p), read_seed(seed), read_offset(offset), int64_t(read_uint("start", start, 62)), 0, 0, 0};
  if (channel_axis.is_none()) return mask;
  const int64_t given = read_axis(channel_axis), axis = given < 0 ? given + ndim : given;
  if (axis < 1 || axis >= ndim)
    throw py::value_error(
        "channel_axis must be an axis other than 0, the batch, of an array of shape " +
        tuple_text(shape, ndim) + ", got " + repr_of(channel_axis));
  mask.repeats = product(shape, 1, axis);
  mask.channels = shape[axis];
  mask.inner = product(shape, axis + 1, ndim);
  return mask;
}

// ---- arrays ----

// An array and, unless it is contiguous in C order, how to visit it in that order.
struct RowMajorArray {
  Array array;
  std::unique_ptr<Walk> walk;

  RowMajorArray() = default;
  explicit RowMajorArray(Array a) : array(std::move(a)) {
    if (!is_row_major(array)) walk = std::make_unique<Walk>(row_walk(array));
  }
  Source source() const { return {array.data, walk.get()}; }
};

RowMajorArray read_bias(const Array& x, py::handle object) {
  const ArgName arg{"bias"};
  RowMajorArray bias(read_array(object, arg));
  const Array& b = bias.array;
  if (b.dtype != x.dtype && b.dtype != DType::float32)
    throw py::type_error("bias has dtype " + std::string(name_of(b.dtype)) + ", but x has " +
                         name_of(x.dtype) + "; expected the same or float32");
  if (x.ndim == 0 || b.ndim != 1 || b.shape[0] != x.shape[x.ndim - 1])
    throw py::value_error("bias has shape " + tuple_text(b.shape, b.ndim) + ", but x has " +
                          tuple_text(x.shape, x.ndim) + "; expected one value per column");
  return bias;
}

// ---- the calls ----

void run(RowMajorArray& x, const ArgName& x_arg, RowMajorArray* residual, RowMajorArray* bias,
         py::handle out_object, const DropoutMask& mask, const DropoutOptions& options) {
  const ArgName out_arg{"out"};
  RowMajorArray out(read_like(out_object, out_arg, x.array, x_arg));
  CallDevice device;
  device.add(x.array, x_arg);
  device.add(out.array, out_arg);
  if (residual) device.add(residual->array, {"residual"});
  if (bias) device.add(bias->array, {"bias"});
  require_target(out.array, out_arg);
  Overlaps written;
  written.write(out.array, out_arg);
  written.check_input(x.array, x_arg, out.array);
  if (residual) written.check_input(residual->array, {"residual"}, out.array);
  if (bias) written.check_read(bias->array, {"bias"});
  const Array& a = x.array;
  const DropoutCall call{device.place(),
                         mask,
                         options,
                         a.dtype,
                         a.size(),
                         x.source(),
                         residual ? residual->source() : Source{},
                         bias ? bias->source() : Source{},
                         bias ? bias->array.dtype : a.dtype,
                         a.ndim > 0 ? a.shape[a.ndim - 1] : 1,
                         {out.array.data, out.walk.get()}};
  for (const RowMajorArray* array :
       std::initializer_list<const RowMajorArray*>{&x, &out, residual, bias})
    if (array) device.wait_for(array->array);
  py::gil_scoped_release unlocked;
  device.engine().dropout(call);
}

Shape dropout_forward(py::handle x_object, py::handle residual_object, py::handle bias_object,
                      py::handle out, py::handle seed, py::handle offset, py::handle p,
                      py::handle training, py::handle scaling, py::handle alpha,
                      py::handle channel_axis, py::handle start) {
  const DropoutOptions options = read_options(training, scaling, alpha);
  const ArgName x_arg{"x"};
  RowMajorArray x(read_array(x_object, x_arg));
  const DropoutMask mask = read_mask(p, seed, offset, start, channel_axis, x.array.shape, x.array.ndim);
  RowMajorArray residual, bias;
  const bool adds = !residual_object.is_none(), shifts = !bias_object.is_none();
  if (adds) residual = RowMajorArray(read_like(residual_object, {"residual"}, x.array, x_arg));
  if (shifts) bias = read_bias(x.array, bias_object);
  run(x, x_arg, adds ? &residual : nullptr, shifts ? &bias : nullptr, out, mask, options);
  return shape_of(x.array);
}

void dropout_backward(py::handle dy_object, py::handle out, py::handle seed, py::handle offset,
                      py::handle p, py::handle training, py::handle scaling, py::handle alpha,
                      py::handle channel_axis, py::handle start, const Shape& shape) {
  DropoutOptions options = read_options(training, scaling, alpha);
  options.backward = true;
  const ArgName dy_arg{"dy"};
  RowMajorArray dy(read_array(dy_object, dy_arg));
  if (!shape_of(dy.array).equal(shape))
    throw py::value_error("dy has shape " + tuple_text(dy.array.shape, dy.array.ndim) +
                          ", but the forward's x had " + std::string(py::str(py::handle(shape))));
  const DropoutMask mask =
      read_mask(p, seed, offset, start, channel_axis, dy.array.shape, dy.array.ndim);
  run(dy, dy_arg, nullptr, nullptr, out, mask, options);
}

void fill_mask(py::array_t<bool, py::array::c_style> keep, py::handle seed, py::handle offset,
               py::handle p, py::handle channel_axis, py::handle start) {
  const DropoutMask mask =
      read_mask(p, seed, offset, start, channel_axis, keep.shape(), int(keep.ndim()));
  bool* const data = keep.mutable_data();
  py::gil_scoped_release unlocked;
  cpu::dropout_mask(mask, keep.size(), data);
}

py::typing::Tuple<py::int_, py::int_, py::int_, py::int_> philox4x32(py::handle seed, py::handle offset,
                                                                     py::handle index) {
  uint32_t word[4];
  philox_words(read_seed(seed), read_offset(offset), read_uint("index", index, 64), word);
  return py::make_tuple(word[0], word[1], word[2], word[3]);
}

}  // namespace

void register_dropout(py::module_& m) {
  m.def("dropout_forward", dropout_forward, py::arg("x"), py::arg("residual"), py::arg("bias"),
        py::arg("out"), py::arg("seed"), py::arg("offset"), py::arg("p"), py::arg("training"),
        py::arg("scaling"), py::arg("alpha"), py::arg("channel_axis"), py::arg("start"),
        "out = residual + dropout(x + bias); the shape of x.");
  m.def("dropout_backward", dropout_backward, py::arg("dy"), py::arg("out"), py::arg("seed"),
        py::arg("offset"), py::arg("p"), py::arg("training"), py::arg("scaling"), py::arg("alpha"),
        py::arg("channel_axis"), py::arg("start"), py::arg("shape"),
        "out = dx, of a forward with the same options on this shape.");
  m.def("dropout_mask", fill_mask, py::arg("keep").noconvert(), py::arg("seed"), py::arg("offset"),
        py::arg("p"), py::arg("channel_axis"), py::arg("start"),
        "Fill an array with the mask: True where kept.");
  m.def(
      "check_dropout",
      [](py::handle p, py::handle scaling, py::handle alpha, py::handle channel_axis) {
        read_p(p);
        read_options(py::bool_(true), scaling, alpha);
        if (!channel_axis.is_none()) read_axis(channel_axis);
      },
      py::arg("p"), py::arg("scaling"), py::arg("alpha"), py::arg("channel_axis"),
      "Raise what a forward with these options would raise, else return.");
  m.def("philox4x32", philox4x32, py::arg("seed"), py::arg("offset"), py::arg("index"),
        "Four random words.");
}

}  // namespace fastopt::bind
