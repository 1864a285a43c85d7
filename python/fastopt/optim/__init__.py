"""The optimizers.

Every class takes ``params`` as one array, a sequence, a dict name -> array or a list of groups
(``[{"params": [...], "lr": ...}, ...]``), and the options of :class:`fastopt.Around` by keyword. Arrays are
float16, bfloat16, float32 or float64, dense in memory in any order of axes, and are written in place;
16-bit ones are computed in float32. Hyper-parameters are plain attributes (``opt.lr = 1e-4``) and so is the
state, lists of arrays in the order of the parameters. ``state_dtype="float32"`` keeps the state of 16-bit
parameters in float32.

Wrong values raise ``ValueError``, wrong kinds ``TypeError``, before anything is written.

>>> import numpy as np, fastopt
>>> w, b = np.ones(2), np.zeros(2)
>>> opt = fastopt.SGD([{"params": [w]}, {"params": [b], "lr": 1.0}], lr=0.5)
>>> opt.step([np.ones(2), np.ones(2)])
>>> w, b
(array([0.5, 0.5]), array([-1., -1.]))
"""

from fastopt.optim._adam import Adam, AdamW
from fastopt.optim._adaptive import AdaGrad, RMSprop
from fastopt.optim._velocity import SGD, Momentum, Nesterov

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "RMSprop"]
