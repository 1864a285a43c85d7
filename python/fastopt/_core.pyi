# Written by tools/stubs.py from the compiled module.
"""
fastopt's kernels. Use the fastopt package instead.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing
import typing_extensions

class Stepper:
    """
    One optimizer's arrays and hyper-parameters.
    """
    def __init__(
        self,
        rule: str,
        params: list[typing.Any],
        states: list[list[typing.Any]],
        group_sizes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        names: typing.Any = None,
        param_role: str = "params",
        grad_role: str = "grads",
        persistent: bool = False,
    ) -> None:
        """
        Keep the lists: one of arrays to step and, for each of the rule's states, one as long.
        Arrays replaced in them later are noticed. Messages call an array names(role, index).
        """
    def check(self) -> None:
        """
        Raise what a step would raise of the targets, else return.
        """
    def require_idle(self) -> None:
        """
        Raise RuntimeError in the middle of a step.
        """
    def set_hyper(
        self, group: typing.SupportsInt | typing.SupportsIndex, values: dict[str, typing.Any]
    ) -> None:
        """
        The hyper-parameters of one group, by its index; what is not named has its default.
        """
    def set_list_hyper(self, values: dict[str, typing.Any]) -> None:
        """
        Those that act on the whole list (LIST_HYPER): clipping by norm and the non-finite policy.
        """
    def step(self, grads: typing.Any, grad_names: typing.Any = None) -> bool:
        """
        Step all arrays, in place; False if skipped for a non-finite gradient, as far as the host
        can know. Every check comes before the first write. `grad_names` serve as `names` do.
        """
    @property
    def on_device(self) -> bool:
        """
        Whether a device keeps hyper-parameters and counts of its own.
        """
    @property
    def skipped_steps(self) -> int: ...
    @skipped_steps.setter
    def skipped_steps(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def step_count(self) -> int: ...
    @step_count.setter
    def step_count(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None: ...

class BatchNormOptions:
    """
    The options of a forward pass, checked before.
    """
    def __init__(
        self,
        evaluate: bool,
        old_weight: typing.SupportsFloat | typing.SupportsIndex | None,
        new_weight: typing.SupportsFloat | typing.SupportsIndex | None,
        unbiased: bool,
        single_value: bool,
        eps: typing.SupportsFloat | typing.SupportsIndex,
        axis: typing.SupportsInt | typing.SupportsIndex,
        relu: bool,
    ) -> None:
        """
        Without old_weight and new_weight, running statistics are the average of all batches.
        """

class BatchNormSaved:
    """
    What a forward pass leaves for the backward pass.
    """
    @property
    def beta(self) -> typing.Any: ...
    @property
    def count(self) -> float: ...
    @property
    def gamma(self) -> typing.Any: ...
    @property
    def has_relu(self) -> bool: ...
    @property
    def has_residual(self) -> bool: ...
    @property
    def invstd(self) -> numpy.typing.NDArray[numpy.float64]: ...
    @property
    def mean(self) -> numpy.typing.NDArray[numpy.float64]: ...
    @property
    def var(self) -> numpy.typing.NDArray[numpy.float64]: ...
    @property
    def x(self) -> typing.Any:
        """
        None if a pass has overwritten it.
        """

def batch_moments(
    x: typing.Any, axis: typing.SupportsInt | typing.SupportsIndex
) -> tuple[float, numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
    """
    Count, means and sums of squared deviations, channel by channel.
    """

def batch_moments_join(
    parts: collections.abc.Sequence[
        tuple[
            typing.SupportsFloat | typing.SupportsIndex,
            typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
            typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        ]
    ],
) -> tuple[float, numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
    """
    Those of all parts together.
    """

def batch_norm_backward(
    dy: typing.Any,
    saved: BatchNormSaved,
    out: typing.Any,
    dgamma: typing.Any,
    dbeta: typing.Any,
    dresidual: typing.Any,
    sums: tuple[
        typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
    ]
    | None,
) -> None:
    """
    Write the gradients, with the sums over x and dy or those given.
    """

def batch_norm_forward(
    options: BatchNormOptions,
    x: typing.Any,
    out: typing.Any,
    gamma: typing.Any,
    beta: typing.Any,
    running_mean: typing.Any,
    running_var: typing.Any,
    residual: typing.Any,
    moments: tuple[
        typing.SupportsFloat | typing.SupportsIndex,
        typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
    ]
    | None,
    batch: typing.SupportsInt | typing.SupportsIndex,
) -> BatchNormSaved:
    """
    Normalize x into out, with its own statistics or those of `moments`.
    """

def batch_norm_overwrites(dy: typing.Any, out: typing.Any) -> bool:
    """
    Whether a backward pass into out writes over dy.
    """

def batch_norm_reduce(
    dy: typing.Any, saved: BatchNormSaved
) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
    """
    The sums of dy and of dy (x - mean), channel by channel.
    """

def check_array(array: typing.Any, role: str) -> tuple[int, ...]:
    """
    Raise what is wrong with an array that is only read, else return its shape.
    """

def check_dropout(
    p: typing.Any, scaling: typing.Any, alpha: typing.Any, channel_axis: typing.Any
) -> None:
    """
    Raise what a forward with these options would raise, else return.
    """

def check_hyper(rule: str, values: dict[str, typing.Any]) -> None:
    """
    Raise what a step of this rule with these hyper-parameters would raise, else return.
    """

def check_targets(arrays: list[typing.Any], role: str, names: typing.Any = None) -> None:
    """
    Raise what an optimizer would raise of arrays it cannot write to.
    """

def clip_grad_norm(
    grads: list[typing.Any], options: dict[str, typing.Any], names: typing.Any = None
) -> float | list[float]:
    """
    Scale in place to a norm of at most max_norm; returns the norm before or, each array on its
    own, a list of norms.
    """

def clip_grad_value(
    grads: list[typing.Any], options: dict[str, typing.Any], names: typing.Any = None
) -> None:
    """
    Limit every element in place to [-value, value].
    """

def cuda_trouble() -> str:
    """
    Why CUDA arrays cannot be worked on here; empty if they can.
    """

def dropout_backward(
    dy: typing.Any,
    out: typing.Any,
    seed: typing.Any,
    offset: typing.Any,
    p: typing.Any,
    training: typing.Any,
    scaling: typing.Any,
    alpha: typing.Any,
    channel_axis: typing.Any,
    start: typing.Any,
    shape: tuple[int, ...],
) -> None:
    """
    out = dx, of a forward with the same options on this shape.
    """

def dropout_forward(
    x: typing.Any,
    residual: typing.Any,
    bias: typing.Any,
    out: typing.Any,
    seed: typing.Any,
    offset: typing.Any,
    p: typing.Any,
    training: typing.Any,
    scaling: typing.Any,
    alpha: typing.Any,
    channel_axis: typing.Any,
    start: typing.Any,
) -> tuple[int, ...]:
    """
    out = residual + dropout(x + bias); the shape of x.
    """

def dropout_mask(
    keep: numpy.typing.NDArray[numpy.bool],
    seed: typing.Any,
    offset: typing.Any,
    p: typing.Any,
    channel_axis: typing.Any,
    start: typing.Any,
) -> None:
    """
    Fill an array with the mask: True where kept.
    """

def get_num_threads() -> int:
    """
    How many threads a large enough step uses.
    """

def global_norm(
    arrays: list[typing.Any], options: dict[str, typing.Any], names: typing.Any = None
) -> float:
    """
    The norm of the list taken as one sequence. Messages call an array names(role, index).
    """

def isa() -> str:
    """
    The one in use.
    """

def isas_built() -> list[str]:
    """
    The instruction sets of this build, best first.
    """

def isas_supported() -> list[str]:
    """
    Those of them that this CPU has.
    """

def philox4x32(seed: typing.Any, offset: typing.Any, index: typing.Any) -> tuple[int, int, int, int]:
    """
    Four random words.
    """

def select_isa(name: str) -> None:
    """
    Use this one; an empty name means the best.
    """

def set_last_level_cache(bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Take the last-level cache to be this large; 0: as the system says. For tests.
    """

def set_num_threads(n: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Use n threads; 0 leaves it to OpenMP.
    """

def set_parallel_cutoff(bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Use threads from this much memory traffic on. For tests.
    """

def set_prefetch_threshold(bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Let steps ask ahead where a thread moves more than this; 0: as it pays here. For tests.
    """

def use_cuda(backend: typing_extensions.CapsuleType | None) -> None:
    """
    Work on CUDA arrays with this engine; None: look for it again. For tests.
    """

COMPILER: str
LIST_HYPER: list[str]
PARALLEL_CUTOFF: int
RULES: dict[str, dict[str, list[str]]]
RUN_HYPER: list[str]
