"""Data augmentation: random crops, flips, rotations, color jitter, noise, cutout and mixup for images; synonym
replacement and back-translation for text.

Every function takes a batch and a :class:`Draws`, which provides random numbers for each *sample* by its number
in the data set. The result for a sample depends on the seed, the epoch and that number, but not on its batch or
on other draws. Therefore a run that is divided into other batches, distributed over processes or resumed gets
the same images.

>>> import numpy as np, fastopt
>>> from fastopt.data import augment
>>> images, number = np.ones((6, 3, 8, 8), np.float32), np.arange(6)
>>> for x, i in fastopt.data.minibatches(images, number, batch_size=4):
...     draws = augment.Draws(i, seed=1, epoch=0)
...     x = augment.flip(augment.crop(x, draws, padding=2), draws)

Images are arrays (N, C, H, W), or (N, H, W, C) with ``layout="NHWC"``, of NumPy, CuPy, torch or another library
of the array API. Results are new arrays of the same library and dtype. ``crop``, ``flip`` and
``cutout`` accept any dtype. The others compute new values: they accept floating point only, compute 16-bit
images in float32, and round once.

Wrong values raise ``ValueError``, wrong types ``TypeError``.
"""

from fastopt.data.augment._draws import Draws
from fastopt.data.augment._geometric import crop, cutout, flip, rotate
from fastopt.data.augment._intensity import jitter, mixup, noise
from fastopt.data.augment._text import back_translate, replace_synonyms

__all__ = [
    "Draws",
    "back_translate",
    "crop",
    "cutout",
    "flip",
    "jitter",
    "mixup",
    "noise",
    "replace_synonyms",
    "rotate",
]
