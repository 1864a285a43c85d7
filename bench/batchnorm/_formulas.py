"""BatchNorm (Ioffe & Szegedy 2015, arXiv:1502.03167) as an array library's users write it: with ``xp``
NumPy in float64 the reference, in the arrays' own type a competitor, with JAX under jit another."""

from __future__ import annotations


def forward(xp, x, gamma, beta, others, spread, eps):
    """``y``, and mean and 1/√(var + ε) of the batch, a channel."""
    mean, var = x.mean(others), x.var(others)
    inv = 1 / xp.sqrt(var + eps)
    return (x - spread(mean)) * spread(inv * gamma) + spread(beta), mean, inv


def evaluate(xp, x, gamma, beta, running_mean, running_var, spread, eps):
    """``y`` with the running statistics."""
    scale = gamma / xp.sqrt(running_var + eps)
    return (x - spread(running_mean)) * spread(scale) + spread(beta)


def backward(xp, x, dy, gamma, mean, inv, others, spread):
    """``dx``, ``dgamma`` and ``dbeta``."""
    n = x.size // gamma.size
    centred = x - spread(mean)
    dbeta, along = dy.sum(others), (dy * centred).sum(others)
    dx = spread(gamma * inv) * (dy - spread(dbeta / n) - centred * spread(inv * inv * along / n))
    return dx, inv * along, dbeta


def running(mean, inv, running_mean, running_var, n, momentum, eps):
    """The running statistics after one more batch of ``n`` values a channel, the variance unbiased."""
    var = (1 / (inv * inv) - eps) * (n / (n - 1))
    return (
        (1 - momentum) * running_mean + momentum * mean,
        (1 - momentum) * running_var + momentum * var,
    )
