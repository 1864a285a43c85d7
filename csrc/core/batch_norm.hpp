// What BatchNorm asks of a device. bind/ fills these structs with checked buffers.
#pragma once

#include <cstdint>

#include "core/buffer.hpp"
#include "core/dtype.hpp"
#include "core/place.hpp"

namespace fastopt {

// How the channels of an array lie in memory. In rows, the next element is the next channel's
// (channels-last, and N x C); in planes, `inner` elements of one channel lie side by side (NCHW). What
// other axes there are is walked from the slowest to the fastest.
struct ChannelSpace {
  bool rows;
  int64_t channels;
  int64_t inner;  // 1 for rows
  int64_t outer;  // the product of shape
  int ndim;
  int64_t shape[kMaxDims];

  int64_t count() const { return inner * outer; }  // values a channel

  // The bits of ReLU stand in lines of whole bytes: a line for each row, or one for all of a channel.
  int64_t mask_rows() const { return rows ? outer : channels; }
  int64_t mask_row_bytes() const { return ((rows ? channels : count()) + 7) / 8; }
};

// An array in such a space; strides in bytes. Without data: there is none.
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

// How running statistics follow: old_weight * old + new_weight * new.
struct Running {
  ChannelVector mean, var;
  double old_weight, new_weight;
  bool unbiased;  // the variance over count - 1
};

// y = activation((x - mean) / sqrt(var + eps) * gamma + beta + residual).
struct BatchNormForward {
  Place place;
  ChannelSpace space;
  DType dtype;
  ChannelArray x, residual, y;
  ChannelVector gamma, beta;
  Running running;
  bool evaluate;           // with the running statistics, which stay as they are
  Statistics given_stats;  // these instead of the batch's own, if there is a mean
  double eps;
  bool relu;
  uint8_t* relu_mask;  // a bit for each element that ReLU lets pass, if any one asks
  // What backward needs, a number for each channel; scale is gamma * invstd.
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
  ChannelArray x, dy, dx, dresidual;  // without dx: only the sums
  const double *mean, *invstd, *scale;
  double count;  // that the statistics were taken over; 0 in evaluation: they are constants
  const uint8_t* relu_mask;
  bool sums_given;  // `sums` is an input, not a result
  BackwardSums sums;
  ChannelVector dgamma, dbeta;
};

}  // namespace fastopt
