"""Lists of tensor shapes that people train."""

from __future__ import annotations

Shapes = list[tuple[int, ...]]


def resnet50() -> Shapes:
    """ResNet-50's 161 trainable tensors, 25.6 million parameters (He et al. 2016, arXiv:1512.03385)."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            out = 4 * width
            convolutions = [(width, channels, 1, 1), (width, width, 3, 3), (out, width, 1, 1)]
            if block == 0:
                convolutions.append((out, channels, 1, 1))
            for shape in convolutions:
                shapes += [shape, (shape[0],), (shape[0],)]  # with BatchNorm's scale and shift
            channels = out
    return [*shapes, (1000, 2048), (1000,)]


def mlp() -> Shapes:
    """Six small tensors, 8,970 parameters: a network as a course has it."""
    return [(64, 64), (64,), (64, 64), (64,), (64, 10), (10,)]


def workload(name: str, size: int) -> Shapes:
    """The shapes of a workload by name; ``size`` is that of the one ``array``."""
    if name == "array":
        return [(size,)]
    shapes = {"resnet50": resnet50, "mlp": mlp}[name]()
    return shapes


NAMES = ("array", "resnet50", "mlp")
