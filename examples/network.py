"""A network as a list of layers, each with ``forward`` and ``backward``, for ``digits.py``.

Linear and ReLU are written out here, in NumPy or CuPy; BatchNorm and Dropout are fastopt's. What a layer learns
are attributes, ``w`` say, and its backward leaves their gradients beside them, ``dw``.
"""

import numpy as np

import fastopt

LEARNT = ("w", "b", "gamma", "beta")  # names of the attributes
STATISTICS = ("running_mean", "running_var")


class Linear:
    """(B, m) -> (B, n): y = x w + b, with He's initial weights."""

    def __init__(self, xp, m, n, generator, bias=True):
        zeros = xp.zeros(n, dtype=np.float32)
        self.w = fastopt.init.he_normal((m, n), generator=generator, like=zeros)
        self.b = zeros if bias else None

    def forward(self, x):
        self.x = x
        return x @ self.w if self.b is None else x @ self.w + self.b

    def backward(self, dy):
        self.dw, self.db = self.x.T @ dy, dy.sum(axis=0)
        return dy @ self.w.T


class ReLU:
    """y = max(x, 0)."""

    def forward(self, x):
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy):
        return dy * (self.y > 0)


def make_network(xp, inputs, outputs, args, generator=None):
    """``args.layers`` hidden layers of ``args.hidden`` units, then the logits; arrays of ``xp``, float32.

    One generator hands out all random numbers: first the weights, then in training the masks of Dropout. By
    default it is one of ``args.seed``.
    """
    generator = generator or fastopt.Generator(args.seed)
    network = []
    for _ in range(args.layers):
        # BatchNorm takes the mean away, and a bias with it; its own beta stands in.
        network.append(Linear(xp, inputs, args.hidden, generator, bias=not args.batch_norm))
        if args.batch_norm:
            like = xp.zeros(args.hidden, dtype=np.float32)
            network.append(fastopt.BatchNorm(args.hidden, activation="relu", like=like))
        else:
            network.append(ReLU())
        if args.dropout:
            network.append(fastopt.Dropout(args.dropout, generator=generator))
        inputs = args.hidden
    return [*network, Linear(xp, inputs, outputs, generator)]


def learnt(network, prefix=""):
    """What all layers learn, as ``{"w0": array, ...}``, or with the prefix "d" the gradients, so named too."""
    return {
        f"{name}{i}": getattr(layer, prefix + name)
        for i, layer in enumerate(network)
        for name in LEARNT
        if getattr(layer, name, None) is not None
    }


def statistics(network):
    """What BatchNorm keeps for evaluation besides, named likewise: ``{"running_mean1": array, ...}``."""
    return {
        f"{name}{i}": getattr(layer, name)
        for i, layer in enumerate(network)
        for name in STATISTICS
        if hasattr(layer, name)
    }


def forward(network, params, x, training):
    """Inputs (B, m) -> logits (B, n), with these parameters.

    In training BatchNorm takes the statistics of the batch and Dropout drops units; otherwise BatchNorm takes
    its running statistics and nothing is dropped.
    """
    for i, layer in enumerate(network):
        for name in LEARNT:
            if f"{name}{i}" in params:
                setattr(layer, name, params[f"{name}{i}"])
        layer.training = training
        x = layer.forward(x)
    return x


def loss_and_grads(network, params, x, y):
    """The batch's mean cross-entropy, and its gradients under the names and in the shapes of ``params``."""
    log_p = log_softmax(forward(network, params, x, training=True))
    dy = (np.exp(log_p) - y) / len(x)
    for layer in reversed(network):
        dy = layer.backward(dy)
    return -(y * log_p).sum() / len(x), learnt(network, "d")


def log_softmax(logits):
    """Logits (B, n) -> logarithms of probabilities (B, n)."""
    logits = logits - logits.max(axis=1, keepdims=True)  # so that exp cannot overflow
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def loss(network, params, x, y):
    """The mean cross-entropy in evaluation."""
    return -(y * log_softmax(forward(network, params, x, training=False))).sum() / len(x)


def accuracy(network, params, x, y):
    """The share of inputs whose largest logit is the right one."""
    logits = forward(network, params, x, training=False)
    return float((logits.argmax(axis=1) == y.argmax(axis=1)).mean())
