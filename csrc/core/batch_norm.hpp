// The calls of BatchNorm to a device. bind/ fills these structs with validated buffers.
#pragma once

#include <cstdint>

#include "core/buffer.hpp"
#include "core/dtype.hpp"
#include "core/place.hpp"

namespace fastopt {

// The memory layout of an array's channels. `rows`: channels are contiguous (channels-last, or N x C).
// Otherwise (planes, NCHW), `inner` elements of a channel are contiguous. The remaining axes are listed
// from slowest to fastest.
struct ChannelSpace {
  bool rows;
  int64_t channels;
  int64_t inner;  // 1 for rows
  int64_t outer;  // the product of shape
  int ndim;
  int64_t shape[kMaxDims];

  int64_t count() const { return inner * outer; }  // values per channel

  // ReLU's mask consists of rows of whole bytes: one for each row, or in planes one for each channel.
  int64_t mask_rows() const { return rows ? outer : channels; }
  int64_t mask_row_bytes() const { return ((rows ? channels : count()) + 7) / 8; }
};

// An array in such a space; strides in bytes. Without data, the array is absent.
struct ChannelArray {
  char* data;
  int64_t channel;
  int64_t stride[kMaxDims];
};

// One value for each channel.
struct ChannelVector {
  char* data;
  DType dtype;
  int64_t stride;  // bytes
};

// Mean and sum of squared deviations of each channel, over `count` values.
struct Statistics {
  double* mean;
  double* m2;
  double count;
};

struct BatchMoments {
  Place place;
  ChannelSpace space;
  DType dtype;
  ChannelArray x;
  Statistics out;
};

// Running statistics become old_weight * old + new_weight * new.
struct Running {
  ChannelVector mean, var;
  double old_weight, new_weight;
  bool unbiased;  // whether the variance is taken over count - 1
};

// y = activation((x - mean) / sqrt(var + eps) * gamma + beta + residual).
struct BatchNormForward {
  Place place;
  ChannelSpace space;
  DType dtype;
  ChannelArray x, residual, y;
  ChannelVector gamma, beta;
  Running running;
  bool evaluate;           // use the running statistics and leave them unchanged
  Statistics given_stats;  // used instead of the batch's own, if `mean` is not null
  double eps;
  bool relu;
  uint8_t* relu_mask;  // one bit per element, set if ReLU passes it; or null
  // Results for the backward pass, one number per channel; scale is gamma * invstd.
  double *mean, *var, *invstd, *scale;
};

// The two sums of the backward pass: of dy, and of dy (x - mean).
struct BackwardSums {
  double* dy;
  double* dy_centered;
};

struct BatchNormBackward {
  Place place;
  ChannelSpace space;
  DType dtype;
  ChannelArray x, dy, dx, dresidual;  // without dx, only the sums are computed
  const double *mean, *invstd, *scale;
  double count;  // number of values in the statistics; 0 in evaluation, where they are constants
  const uint8_t* relu_mask;
  bool sums_given;  // whether `sums` is an input instead of a result
  BackwardSums sums;
  ChannelVector dgamma, dbeta;
};

}  // namespace fastopt
