"""Fused optimizer steps, BatchNorm and Dropout for any array code."""

from importlib import metadata as _metadata

from fastopt import checkpoint, data, functional, init, penalties, schedules
from fastopt._config import get_num_threads, set_num_threads, show_config
from fastopt._early_stopping import EarlyStopping
from fastopt._ema import EMA
from fastopt._generator import Generator
from fastopt._group import Group
from fastopt._optimizer import Optimizer
from fastopt._options import StepOptions
from fastopt.layers import BatchNorm, Dropout, Layer
from fastopt.optim import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop

__version__ = _metadata.version("fastopt")

__all__ = [
    "EMA",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "BatchNorm",
    "Dropout",
    "EarlyStopping",
    "Generator",
    "Group",
    "Layer",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "StepOptions",
    "checkpoint",
    "data",
    "functional",
    "get_num_threads",
    "init",
    "penalties",
    "schedules",
    "set_num_threads",
    "show_config",
]
