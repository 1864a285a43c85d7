// Arrays from Python: described in place, never copied.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <memory>
#include <string>
#include <vector>

#include "core/backend.hpp"

namespace fastopt::bind {

namespace py = pybind11;

// A CUDA device whose number has not been queried yet.
inline constexpr int kUnknownDevice = -2;

// A list of arrays.
using Arrays = py::typing::List<py::object>;

// The name of an argument in messages: "params[3]", "grads['W1']", or "param" alone.
struct ArgName {
  std::string role;
  py::ssize_t index = -1;      // -1: the role is the whole name
  py::handle names = Py_None;  // a function of both, if the name is not role[index]

  std::string text() const;
};

// The description of an array. The pointers are valid while `owner` is alive.
struct Array {
  char* data = nullptr;
  DType dtype = DType::float32;
  bool writable = false;
  bool is_copy = false;  // writes to it would be lost
  int device = kHost;
  void* stream = nullptr;  // on a device: the data may still be being written on it; null: unknown
  int ndim = 0;
  const py::ssize_t* shape = nullptr;
  const py::ssize_t* strides = nullptr;  // bytes
  py::object owner;
  std::unique_ptr<py::ssize_t[]> numbers;  // shape and strides, unless the owner has them in bytes

  int64_t size() const;
  int64_t bytes() const { return size() * int64_t(bytes_of(dtype)); }
};

// The element types that fastopt computes with, for messages.
inline constexpr const char* kFloatTypes = "float16, bfloat16, float32 or float64";

// What to do with a tensor of torch's that requires grad: reject it, because autograd would miss the
// operation, or allow it, as an optimizer must.
enum class RequiresGrad : bool { reject, allow };

// An attribute, or None if there is none. If reading it raises another error, that is None, too, and
// its message is stored in `trouble`.
py::object attribute(py::handle object, py::handle name, std::string* trouble = nullptr);

// The element type of a NumPy dtype object, which CuPy's arrays have, too.
DType dtype_of(py::handle numpys, const ArgName& arg);

// Reads NumPy arrays; CUDA arrays, if there is an engine for them; and anything else in host memory
// that has a NumPy view or DLPack. Throws TypeError for anything that is not an array of a floating
// type that fastopt computes with.
Array read_array(py::handle object, const ArgName& arg, RequiresGrad policy = RequiresGrad::reject);

// The same, and checks that it has the shape and dtype of another array, x.
Array read_like(py::handle object, const ArgName& arg, const Array& x, const ArgName& x_arg);

// A copy of the shape and strides of an array.
struct Layout {
  std::vector<py::ssize_t> shape, strides;

  Layout() = default;
  explicit Layout(const Array& a);
  bool is_of(const Array& a) const;

  // The axes longer than 1, from the largest stride to the smallest.
  std::vector<int> axes() const;
  // Whether the elements fill a contiguous range of memory, without gaps or overlaps.
  bool dense(int64_t itemsize) const;
};

// Whether the elements are contiguous in C order.
bool is_row_major(const Array& a);

// Whether an array of the same shape has the same order of elements in memory as one with this layout.
bool same_order(const Layout& layout, int64_t itemsize, const Array& a);

// How to visit `a` in the memory order of a dense array of this layout.
Walk walk_like(const Layout& layout, const Array& a);

// How to visit `a` in C order, with as few axes as possible.
Walk row_walk(const Array& a);

// Whether each element of one array is in the same place as that element of the other. Then one may be
// written over the other, because each element is read before it is written.
bool same_elements(const Array& a, const Array& b);

// The first byte of an array, and one past the last.
struct Range {
  const char *begin, *end;
};
Range range_of(const Array& a);

using Shape = py::typing::Tuple<py::int_, py::ellipsis>;
Shape shape_of(const Array& a);

// For messages.
std::string type_name(py::handle object);
std::string tuple_text(const py::ssize_t* numbers, int count);

// Checks that several callers share.
void require_few_axes(py::ssize_t ndim, const ArgName& arg);  // at most kMaxDims
void require_shape(const Array& a, const ArgName& arg, const Array& like, const ArgName& like_arg);
void require_dtype(const Array& a, const ArgName& arg, const Array& like, const ArgName& like_arg);
void require_target(const Array& a, const ArgName& arg);  // writable, dense
// A misaligned access on a device is an error that loses the device's whole context.
void require_aligned(const Array& a, const ArgName& arg);

// Written buffers must not overlap each other, nor buffers that are only read.
class Overlaps {
 public:
  void write(const Array& a, const ArgName& arg);
  void check_writes();  // after the last write()
  void check_read(const Array& a, const ArgName& arg) const;
  // Likewise, for an input that may have the same elements as the result.
  void check_input(const Array& a, const ArgName& arg, const Array& result) const;

 private:
  struct Entry {
    Range range;
    ArgName arg;
  };
  std::vector<Entry> writes_;
};

}  // namespace fastopt::bind
