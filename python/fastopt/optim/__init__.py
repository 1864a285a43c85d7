"""The optimizers.

Every class takes ``params`` as one array, a sequence, a dict name -> array or a list of groups
(``[{"params": [...], "lr": ...}, ...]``), and the options of :class:`fastopt.StepOptions` by keyword. Arrays
are float16, bfloat16, float32 or float64, contiguous in any axis order, and are updated in place; 16-bit
arrays are computed in float32. Hyper-parameters are plain attributes (``opt.lr = 1e-4``), and so is the state:
lists of arrays in the order of the parameters. ``state_dtype="float32"`` stores the state of 16-bit parameters
in float32.

Wrong values raise ``ValueError`` and wrong types ``TypeError`` before anything is written.

>>> import numpy as np, fastopt
>>> w, b = np.ones(2), np.zeros(2)
>>> opt = fastopt.SGD([{"params": [w]}, {"params": [b], "lr": 1.0}], lr=0.5)
>>> opt.step([np.ones(2), np.ones(2)])
>>> w, b
(array([0.5, 0.5]), array([-1., -1.]))

A sum or mean of squares below the smallest normal number, 1.2e-38 in float32, is treated as 0, because
subnormal numbers would slow steps down. With ``eps=0`` a tiny gradient is then divided by 0. In float32 with
other options at their defaults, this happens to a first gradient below 1.1e-19 in :class:`fastopt.AdaGrad`,
below 3.4e-19 in :class:`fastopt.RMSprop` and below 3.4e-18 in :class:`fastopt.Adam`.

>>> w = np.zeros(2, np.float32)
>>> fastopt.AdaGrad(w, eps=0.0).step(np.array([1e-18, 1e-19], np.float32))
>>> w
array([-0.01,  -inf], dtype=float32)
"""

from fastopt.optim._adam import Adam, AdamW
from fastopt.optim._adaptive import AdaGrad, RMSprop
from fastopt.optim._sgd import SGD, Momentum, Nesterov

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "RMSprop"]
