"""A network as a list of layers, each with ``forward`` and ``backward``, for ``digits.py``.

Linear and ReLU are implemented here, in NumPy or CuPy; BatchNorm and Dropout are fastopt's. The parameters of
a layer are attributes, such as ``w``, and its ``backward`` stores their gradients as attributes too, such as
``dw``.
"""

import numpy as np

import fastopt

LEARNABLE = ("w", "b", "gamma", "beta")  # attribute names
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
    """Return a network of ``args.layers`` hidden layers of ``args.hidden`` units, then the logits, in float32.

    ``xp`` creates the arrays. One generator is the source of all random numbers: first of the weights, then, in
    training, of the masks of Dropout. By default it is seeded with ``args.seed``.
    """
    generator = generator or fastopt.Generator(args.seed)
    network = []
    for _ in range(args.layers):
        # BatchNorm subtracts the mean, which removes a bias. Its beta takes the place of the bias.
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


def learnable_params(network, prefix=""):
    """Return the parameters of all layers as ``{"w0": array, ...}``; with the prefix "d", their gradients."""
    return {
        f"{name}{i}": getattr(layer, prefix + name)
        for i, layer in enumerate(network)
        for name in LEARNABLE
        if getattr(layer, name, None) is not None
    }


def statistics(network):
    """Return the running statistics of BatchNorm as ``{"running_mean1": array, ...}``."""
    return {
        f"{name}{i}": getattr(layer, name)
        for i, layer in enumerate(network)
        for name in STATISTICS
        if hasattr(layer, name)
    }


def forward(network, params, x, training):
    """Map inputs (B, m) to logits (B, n), with the parameters ``params``.

    In training, BatchNorm uses the statistics of the batch and Dropout drops units. Otherwise BatchNorm uses
    its running statistics and no unit is dropped.
    """
    for i, layer in enumerate(network):
        for name in LEARNABLE:
            if f"{name}{i}" in params:
                setattr(layer, name, params[f"{name}{i}"])
        layer.training = training
        x = layer.forward(x)
    return x


def loss_and_grads(network, params, x, y):
    """Return the mean cross-entropy of the batch, and its gradients with the names and shapes of ``params``."""
    log_p = log_softmax(forward(network, params, x, training=True))
    dy = (np.exp(log_p) - y) / len(x)
    for layer in reversed(network):
        dy = layer.backward(dy)
    return -(y * log_p).sum() / len(x), learnable_params(network, "d")


def log_softmax(logits):
    """Map logits (B, n) to log-probabilities (B, n)."""
    logits = logits - logits.max(axis=1, keepdims=True)  # so that exp cannot overflow
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def loss(network, params, x, y):
    """Return the mean cross-entropy in evaluation mode."""
    return -(y * log_softmax(forward(network, params, x, training=False))).sum() / len(x)


def accuracy(network, params, x, y):
    """Return the share of inputs whose largest logit is that of the correct class."""
    logits = forward(network, params, x, training=False)
    return float((logits.argmax(axis=1) == y.argmax(axis=1)).mean())
