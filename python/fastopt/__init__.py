"""Fused optimizer steps, BatchNorm and Dropout for any array code."""

from importlib import metadata as _metadata

from fastopt import checkpoint, data, functional, init, penalties, schedules
from fastopt._around import Around
from fastopt._base import Optimizer
from fastopt._config import get_num_threads, set_num_threads, show_config
from fastopt._early_stopping import EarlyStopping
from fastopt._ema import EMA
from fastopt._generator import Generator
from fastopt._group import Group
from fastopt.layers import BatchNorm, Dropout, Layer
from fastopt.optim import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop

__version__ = _metadata.version("fastopt")

__all__ = [
    "EMA",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Around",
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
