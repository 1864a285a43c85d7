"""More training data from the data there are: images shifted, mirrored, turned, recoloured; texts reworded.

Every function takes a batch and a :class:`Draws`, which has a row of random numbers for each *sample*, found by
its number in the data set: what becomes of a sample depends on the seed, the epoch and that number, but not on
the batch that it comes in, nor on what else was drawn. So a run can be cut into other batches, spread over
processes or resumed, and sees the same images.

>>> import numpy as np, fastopt
>>> from fastopt.data import augment
>>> images, number = np.ones((6, 3, 8, 8), np.float32), np.arange(6)
>>> for x, i in fastopt.data.minibatches(images, number, batch_size=4):
...     draws = augment.Draws(i, seed=1, epoch=0)
...     x = augment.flip(augment.crop(x, draws, padding=2), draws)

Images are (N, C, H, W), or (N, H, W, C) with ``layout="NHWC"``, of NumPy, CuPy, torch or another library of the
array API. What comes back is new, of the same library and dtype. Functions that compute with values rather than
move them take floating point only, compute 16-bit images in float32, and round once.

Wrong values raise ``ValueError``, wrong kinds ``TypeError``.
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
