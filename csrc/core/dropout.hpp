// The arguments of a call of dropout; rules/dropout.hpp defines the operation.
#pragma once

#include "core/buffer.hpp"
#include "core/dtype.hpp"
#include "core/place.hpp"

namespace fastopt {

enum class Scaling : uint8_t { inverted, test_time };  // when the mean is kept: training or evaluation

// Which elements are dropped. The mask depends on row-major indices, not on the layout.
struct DropoutMask {
  double p;  // the probability to drop
  uint64_t seed, offset;
  int64_t
      start;  // the index of the first element, or of the first channel if whole channels are dropped
  // For dropping whole channels, one decision per (sample, channel): the array has the shape
  // (samples, repeats, channels, inner). Otherwise channels is 0.
  int64_t repeats, channels, inner;
};

struct DropoutOptions {
  Scaling scaling;
  bool training;
  bool alpha;     // alpha dropout, for SELU
  bool backward;  // the derivative: constants that forward adds are omitted
};

// out = residual + dropout(x + bias), element by element in row-major order. Absent arrays are null.
// The output may be x or the residual itself.
struct DropoutCall {
  Place place;
  DropoutMask mask;
  DropoutOptions options;
  DType dtype;
  int64_t size;
  Source x, residual;
  Source bias;       // one value per column; an element's column is its index modulo `columns`
  DType bias_dtype;  // that of x, or float32
  int64_t columns;
  Target out;
};

}  // namespace fastopt
