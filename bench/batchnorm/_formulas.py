"""BatchNorm (Ioffe & Szegedy 2015, arXiv:1502.03167) as users of an array library write it.

With NumPy as ``xp``, it is the reference in float64 and a competitor in the dtype of the arrays. With JAX
under jit it is another competitor."""

from __future__ import annotations


def forward(xp, x, gamma, beta, others, spread, eps):
    """Return ``y``, and the mean and 1/√(var + ε) of the batch per channel."""
    mean, var = x.mean(others), x.var(others)
    inv = 1 / xp.sqrt(var + eps)
    return (x - spread(mean)) * spread(inv * gamma) + spread(beta), mean, inv


def evaluate(xp, x, gamma, beta, running_mean, running_var, spread, eps):
    """Return ``y`` computed with the running statistics."""
    scale = gamma / xp.sqrt(running_var + eps)
    return (x - spread(running_mean)) * spread(scale) + spread(beta)


def backward(xp, x, dy, gamma, mean, inv, others, spread):
    """Return ``dx``, ``dgamma`` and ``dbeta``."""
    n = x.size // gamma.size
    centered = x - spread(mean)
    dbeta, dy_centered = dy.sum(others), (dy * centered).sum(others)
    dx = spread(gamma * inv) * (dy - spread(dbeta / n) - centered * spread(inv * inv * dy_centered / n))
    return dx, inv * dy_centered, dbeta


def running(mean, inv, running_mean, running_var, n, momentum, eps):
    """Return the running statistics after one more batch of ``n`` values per channel, with the unbiased
    variance."""
    var = (1 / (inv * inv) - eps) * (n / (n - 1))
    return (
        (1 - momentum) * running_mean + momentum * mean,
        (1 - momentum) * running_var + momentum * var,
    )
