"""Preparing data for a network: mini-batches, standardization and augmentation."""

from fastopt.data import augment
from fastopt.data._minibatches import MiniBatches, minibatches
from fastopt.data._standardizer import Standardizer

__all__ = ["MiniBatches", "Standardizer", "augment", "minibatches"]
