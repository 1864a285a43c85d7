// What a call of dropout is told. rules/dropout.hpp says what it means.
#pragma once

#include "core/buffer.hpp"
#include "core/dtype.hpp"
#include "core/place.hpp"

namespace fastopt {

enum class Scaling : uint8_t { inverted, test_time };  // when the mean is kept: training or evaluation

// Which elements are dropped. The mask is decided by row-major indices and knows no layout.
struct DropoutMask {
  double p;  // the probability to drop
  uint64_t seed, offset;
  int64_t start;  // the index that the first element has, or with whole channels the first of them
  // Whole channels, (sample, channel) by (sample, channel): of an array of shape
  // (samples, repeats, channels, inner). Without them channels is 0.
  int64_t repeats, channels, inner;
};

struct DropoutOptions {
  Scaling scaling;
  bool training;
  bool alpha;     // alpha dropout, for SELU
  bool backward;  // the derivative: what is added falls away
};

// out = residual + dropout(x + bias), element by element in row-major order. What is absent is null.
// The output may be x or the residual themselves.
struct DropoutCall {
  Place place;
  DropoutMask mask;
  DropoutOptions options;
  DType dtype;
  int64_t size;
  Source x, residual;
  Source bias;       // one value for each column, an element's index modulo their number
  DType bias_dtype;  // that of x, or float32
  int64_t columns;
  Target out;
};

}  // namespace fastopt
