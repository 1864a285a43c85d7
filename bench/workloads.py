"""Lists of tensor shapes that people train, and the sizes of one array."""

from __future__ import annotations

from math import prod

Shape = tuple[int, ...]
Shapes = list[Shape]


def array(size: int) -> Shapes:
    """One array of any size."""
    return [(size,)]


def embedding(size: int) -> Shapes:
    """A million words of 64 numbers: one large array."""
    return [(1_000_000, 64)]


def mlp(size: int) -> Shapes:
    """Six small tensors, 8,970 parameters: a network as a course has it."""
    return [(64, 64), (64,), (64, 64), (64,), (64, 10), (10,)]


def resnet50(size: int) -> Shapes:
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


def gpt2(size: int) -> Shapes:
    """GPT-2's 148 tensors, 124 million parameters (Radford et al. 2019); the output layer is the
    embedding."""
    width, layers, words, context = 768, 12, 50257, 1024
    norm = [(width,), (width,)]
    attention = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    network = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(words, width), (context, width), *(norm + attention + norm + network) * layers, *norm]


#: What an optimizer steps, by name. Only ``array`` has the size that is asked for.
LISTS = {f.__name__: f for f in (array, embedding, mlp, resnet50, gpt2)}

#: ResNet-50's activations, as batch, channels, height, width: after its first convolution, and where
#: each of its four stages is normalised most.
RESNET50_ACTIVATIONS: dict[str, Shape] = {
    "stem": (32, 64, 112, 112),
    "stage1": (32, 64, 56, 56),
    "stage2": (32, 128, 28, 28),
    "stage3": (32, 256, 14, 14),
    "stage4": (32, 512, 7, 7),
}

#: What a transformer drops: GPT-2's residual stream and its attention's weights, as (batch, [heads,] ...).
TRANSFORMER_ACTIVATIONS: dict[str, Shape] = {
    "residual": (8, 1024, 768),
    "attention": (2, 12, 1024, 1024),
}


def elements(shapes: Shapes) -> int:
    return sum(prod(shape) for shape in shapes)
