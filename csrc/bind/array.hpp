// Arrays as Python hands them over: read where they lie, described, never copied.
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

// A CUDA device that has not been asked for its number yet.
inline constexpr int kUnknownDevice = -2;

// A list of arrays.
using Arrays = py::typing::List<py::object>;

// Which argument is spoken of: "params[3]", "grads['W1']", or "param" alone.
struct ArgName {
  std::string role;
  py::ssize_t index = -1;      // -1: the role is the whole name
  py::handle names = Py_None;  // called with both, where they make another name than role[index]

  std::string text() const;
};

// What an array says of itself. The pointers stay valid while `owner` lives.
struct Array {
  char* data = nullptr;
  DType dtype = DType::float32;
  bool writable = false;
  bool is_copy = false;  // what is written to it is lost
  int device = kHost;
  void* stream = nullptr;  // of a device: the data may still be being written there; null: none is said
  int ndim = 0;
  const py::ssize_t* shape = nullptr;
  const py::ssize_t* strides = nullptr;  // bytes
  py::object owner;
  std::unique_ptr<py::ssize_t[]> numbers;  // shape and strides, where the owner keeps none in bytes

  int64_t size() const;
  int64_t bytes() const { return size() * int64_t(bytes_of(dtype)); }
};

// The element types that fastopt computes with, for messages.
inline constexpr const char* kFloatTypes = "float16, bfloat16, float32 or float64";

// What of a tensor whose gradient torch records: refused, since a result would be missing from the
// record, or taken, as an optimizer must.
enum class RequiresGrad : bool { reject, allow };

// An attribute; None if there is none, or asking for it raises something else, which is `trouble`.
py::object attribute(py::handle object, py::handle name, std::string* trouble = nullptr);

// Of NumPy's dtype object, which CuPy's arrays have, too.
DType dtype_of(py::handle numpys, const ArgName& arg);

// Takes NumPy arrays; CUDA arrays, if there is an engine for them; through a NumPy view or DLPack
// everything else that lives in host memory.
// Throws TypeError for what is no array of a floating type fastopt computes with.
Array read_array(py::handle object, const ArgName& arg, RequiresGrad policy = RequiresGrad::reject);

// The same, of the shape and dtype of another array, x.
Array read_like(py::handle object, const ArgName& arg, const Array& x, const ArgName& x_arg);

// Shape and strides of an array, kept.
struct Layout {
  std::vector<py::ssize_t> shape, strides;

  Layout() = default;
  explicit Layout(const Array& a);
  bool is_of(const Array& a) const;

  // The axes longer than 1, from the largest stride to the smallest.
  std::vector<int> axes() const;
  // Whether the elements fill one stretch of memory without gap or overlap.
  bool dense(int64_t itemsize) const;
};

// Whether the elements follow each other in row-major order.
bool is_row_major(const Array& a);

// Whether an array of that shape has its elements in the same order in memory as one of this layout.
bool same_order(const Layout& layout, int64_t itemsize, const Array& a);

// How to visit `a` in the memory order of a dense array of this layout.
Walk walk_like(const Layout& layout, const Array& a);

// How to visit `a` in row-major order, with no more axes than that takes.
Walk row_walk(const Array& a);

// Whether each element of one is where that element of the other is: then each is read before it is
// written, and one may be written over the other.
bool same_elements(const Array& a, const Array& b);

// First byte and one past the last.
struct Range {
  const char *begin, *end;
};
Range range_of(const Array& a);

using Shape = py::typing::Tuple<py::int_, py::ellipsis>;
Shape shape_of(const Array& a);

// For messages.
std::string type_name(py::handle object);
std::string tuple_text(const py::ssize_t* numbers, int count);

// The refusals that several callers share.
void require_few_axes(py::ssize_t ndim, const ArgName& arg);  // as many as a walk has room for
void require_shape(const Array& a, const ArgName& arg, const Array& like, const ArgName& like_arg);
void require_dtype(const Array& a, const ArgName& arg, const Array& like, const ArgName& like_arg);
void require_target(const Array& a, const ArgName& arg);  // writable, dense

// A misaligned access on a device is an error that loses the device's whole context.
void require_aligned(const Array& a, const ArgName& arg);
// Written buffers must not overlap each other, nor those that are only read.
class Overlaps {
 public:
  void write(const Array& a, const ArgName& arg);
  void check_writes();  // after the last write()
  void check_read(const Array& a, const ArgName& arg) const;
  // Likewise, of an input that the result may be written over element by element.
  void check_input(const Array& a, const ArgName& arg, const Array& result) const;

 private:
  struct Entry {
    Range range;
    ArgName arg;
  };
  std::vector<Entry> writes_;
};

}  // namespace fastopt::bind
