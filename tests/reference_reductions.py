"""BatchNorm's reductions in plain float64, combined in the order of csrc/rules/moments.hpp and tree.hpp. With
them, the bits of a whole pass can be computed."""

from __future__ import annotations

import numpy as np

LANES, PLANE_BLOCK, ROW_BLOCK, QUARTERS = 16, 4096, 128, 4


def tree(nodes: list, join) -> object:
    """Combine adjacent pairs until one node is left. An unpaired last node moves to the next level."""
    while len(nodes) > 1:
        odd = nodes[len(nodes) // 2 * 2 :]
        nodes = [join(a, b) for a, b in zip(nodes[::2], nodes[1::2], strict=False)] + odd
    return nodes[0]


def block_sums(values: np.ndarray, rows: bool) -> np.ndarray:
    """Sums over the first axis. A block's quarters are added in order, either sequentially (rows) or in
    lanes that are then reduced by halving."""
    lanes = np.zeros((1 if rows else LANES, *values.shape[1:]))
    quarter = (ROW_BLOCK if rows else PLANE_BLOCK) // QUARTERS
    for begin in range(0, len(values), quarter):
        own = np.zeros_like(lanes)
        for start in range(begin, min(begin + quarter, len(values)), len(lanes)):
            stretch = values[start : min(start + len(lanes), begin + quarter)]
            own[: len(stretch)] += stretch
        lanes += own
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    return lanes[0]


def blocks(values: np.ndarray, rows: bool) -> list[np.ndarray]:
    size = ROW_BLOCK if rows else PLANE_BLOCK
    return [values[i : i + size] for i in range(0, len(values), size)]


def moments(x: np.ndarray, rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sum of squared deviations over the first axis of ``x``, whose values are in memory order."""
    nodes = []
    for block in blocks(x.astype(np.float64), rows):
        d = block - block[0]
        total, squares, n = block_sums(d, rows), block_sums(d * d, rows), float(len(block))
        mean = total / n
        nodes.append((block[0] + mean, np.maximum(squares - total * mean, 0.0), n))
    mean, m2, _ = tree(nodes, join_moments)
    return mean, m2


def join_moments(a: tuple, b: tuple) -> tuple:
    """Chan, Golub & LeVeque 1983, equation 2.1."""
    (mean_a, m2_a, n_a), (mean_b, m2_b, n_b) = a, b
    n, d = n_a + n_b, mean_b - mean_a
    return mean_a + d * (n_b / n), (m2_a + m2_b) + d * d * (n_a * n_b / n), n


def backward_sums(x: np.ndarray, dy: np.ndarray, mean: np.ndarray, rows: bool) -> tuple:
    """The sums of dy and of dy (x - mean). x and dy have the compute type of elements."""
    rounded = mean.astype(x.dtype)
    products = dy.astype(np.float64) * (x - rounded).astype(np.float64)
    sums = []
    for values in (dy.astype(np.float64), products):
        sums.append(tree([block_sums(b, rows) for b in blocks(values, rows)], np.add))
    return sums[0], sums[1] + (rounded.astype(np.float64) - mean) * sums[0]
