"""Lists of tensor shapes of common networks, and single arrays of any size."""

from __future__ import annotations

from math import prod

Shape = tuple[int, ...]
Shapes = list[Shape]


def array(size: int) -> Shapes:
    """One array of any size."""
    return [(size,)]


def embedding(size: int) -> Shapes:
    """One large array: a million words with 64 numbers each."""
    return [(1_000_000, 64)]


def mlp(size: int) -> Shapes:
    """Six small tensors, 8,970 parameters: a network of the size used in a course."""
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
                shapes += [shape, (shape[0],), (shape[0],)]  # and the scale and shift of BatchNorm
            channels = out
    return [*shapes, (1000, 2048), (1000,)]


def gpt2(size: int) -> Shapes:
    """GPT-2's 148 tensors, 124 million parameters (Radford et al. 2019); the output layer shares the
    embedding."""
    width, layers, words, context = 768, 12, 50257, 1024
    norm = [(width,), (width,)]
    attention = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    network = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(words, width), (context, width), *(norm + attention + norm + network) * layers, *norm]


#: The lists of an optimizer step, by name. Only ``array`` depends on the requested size.
LISTS = {f.__name__: f for f in (array, embedding, mlp, resnet50, gpt2)}

#: ResNet-50's activations, as batch, channels, height, width: after its first convolution, and the shape that
#: is normalized most often in each of its four stages.
RESNET50_ACTIVATIONS: dict[str, Shape] = {
    "stem": (32, 64, 112, 112),
    "stage1": (32, 64, 56, 56),
    "stage2": (32, 128, 28, 28),
    "stage3": (32, 256, 14, 14),
    "stage4": (32, 512, 7, 7),
}

#: The arrays to which a transformer applies dropout: GPT-2's residual stream and attention weights, as
#: (batch, [heads,] ...).
TRANSFORMER_ACTIVATIONS: dict[str, Shape] = {
    "residual": (8, 1024, 768),
    "attention": (2, 12, 1024, 1024),
}


def elements(shapes: Shapes) -> int:
    return sum(prod(shape) for shape in shapes)
