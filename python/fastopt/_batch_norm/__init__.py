"""Batch normalization, forward and backward; public as part of :mod:`fastopt.functional`."""

from fastopt._batch_norm._forward_backward import batch_norm_backward, batch_norm_forward
from fastopt._batch_norm._options import forward_options
from fastopt._batch_norm._partial import (
    batch_norm_apply,
    batch_norm_backward_apply,
    batch_norm_backward_reduce,
    batch_norm_join,
    batch_norm_moments,
)
from fastopt._batch_norm._types import (
    BatchMoments,
    BatchNormGrads,
    BatchNormResidualGrads,
    BatchNormSums,
)

__all__ = [
    "BatchMoments",
    "BatchNormGrads",
    "BatchNormResidualGrads",
    "BatchNormSums",
    "batch_norm_apply",
    "batch_norm_backward",
    "batch_norm_backward_apply",
    "batch_norm_backward_reduce",
    "batch_norm_forward",
    "batch_norm_join",
    "batch_norm_moments",
    "forward_options",
]
