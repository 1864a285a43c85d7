"""Parameters and gradients as users write them, made into flat lists and back.

One array, a sequence, a dict name -> array, or a list of groups, each a dict with ``params`` and the
hyper-parameters of its own.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from fastopt import _core

Array = Any  # NumPy, CuPy, torch, or whatever else speaks a protocol that csrc/bind/array.cpp reads
Arrays = Any  # one of them, or a list
Naming = Callable[[str, int], str]


def is_array(obj: object) -> bool:
    """Whether ``obj`` is one array rather than a collection of arrays."""
    if isinstance(obj, np.ndarray):
        return True
    if isinstance(obj, (list, tuple, Mapping)):
        return False
    names = ("__dlpack__", "__cuda_array_interface__")
    return any(_has(obj, name) for name in names) or is_viewable(obj)


def _has(obj: object, name: str) -> bool:
    """Whether ``obj`` has the attribute, be it one that raises: the core says what."""
    try:
        return hasattr(obj, name)
    except Exception:
        return True


def is_viewable(obj: object) -> bool:
    """Whether ``np.asarray`` makes a view of it."""
    if _has(obj, "__array_interface__"):
        return True
    try:
        memoryview(obj)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


@dataclass
class Params:
    """A flat list of arrays, and what it looked like before."""

    arrays: list[Array]
    form: str  # "array", "list", "dict" or "groups"
    names: list[Any] | None = None  # of dict entries, for messages and checkpoints
    group_sizes: list[int] = field(default_factory=list)
    overrides: list[dict[str, Any]] = field(default_factory=list)  # a dict for each group
    groups: list[Params] = field(default_factory=list)  # their forms and names; the arrays are here

    @classmethod
    def read(cls, params: object, role: str = "params") -> Params:
        if isinstance(params, Mapping):
            arrays = list(params.values())
            return cls(arrays, "dict", list(params), [len(arrays)], [{}])
        if is_array(params):
            return cls([params], "array", None, [1], [{}])
        if not isinstance(params, Iterable):
            raise TypeError(
                f"{role} has type {type(params).__name__}, expected an array, a sequence, "
                "a dict of arrays, or a list of groups"
            )
        items = list(params)
        if items and all(isinstance(item, Mapping) for item in items):
            return cls._read_groups(items)
        return cls(items, "list", None, [len(items)], [{}])

    @classmethod
    def _read_groups(cls, groups: list[Mapping[str, Any]]) -> Params:
        whole = cls([], "groups")
        for i, group in enumerate(groups):
            if "params" not in group:
                raise ValueError(f"params[{i}] is a group without the key 'params'")
            role = f"params[{i}]['params']"
            part = cls.read(group["params"], role)
            if part.form == "groups":
                raise TypeError(f"{role} holds groups, expected arrays")
            whole.arrays += part.arrays
            whole.groups.append(replace(part, arrays=[]))
            whole.group_sizes.append(len(part.arrays))
            whole.overrides.append({k: v for k, v in group.items() if k != "params"})
        if any(part.names is not None for part in whole.groups):
            whole.names = []
            for part, stretch in zip(whole.groups, whole.parts(), strict=True):
                whole.names += part.names or range(stretch.start, stretch.stop)
        return whole

    def parts(self) -> list[slice]:
        """Where each group lies in the list."""
        ends = list(accumulate(self.group_sizes, initial=0))
        return [slice(a, b) for a, b in pairwise(ends)]

    def named(self, role: str, i: int) -> str:
        """What a message calls the i-th array of a list or a dict."""
        return f"{role}[{i if self.names is None else self.names[i]!r}]"

    def within(self, role: str, i: int) -> str:
        """What it calls it in a list of groups, where it stands under the key that the role is."""
        n = next(n for n, part in enumerate(self.parts()) if i < part.stop)
        at, part = f"{role}[{n}][{role!r}]", self.groups[n]
        return at if part.form == "array" else part.named(at, i - self.parts()[n].start)

    def place(self, role: str, i: int) -> str:
        """What it calls it in the parameters, or in another list in their order: state, gradients."""
        if self.form != "groups":
            return self.named(role, i)
        return self.within(role, i) if role == "params" else f"{role}[{i}]"

    def flatten(self, grads: Any, role: str = "grads") -> tuple[Any, Naming]:
        """Gradients in the shape of the parameters, or already flat, as a flat sequence; and their names."""
        if self.form == "array":
            one = is_array(grads) or not isinstance(grads, (list, tuple))
            return [grads] if one else grads, self.place
        if isinstance(grads, Mapping):
            return self._by_name(grads, role), self.named
        if not isinstance(grads, (list, tuple)):
            grads = list(grads) if isinstance(grads, Iterable) and not is_array(grads) else grads
        if self.form == "groups" and grads and all(isinstance(g, Mapping) for g in grads):
            return self._by_group(grads, role), self.within
        return grads, self.place  # Stepper.step says what is wrong with it

    def _by_name(self, grads: Mapping[Any, Array], role: str) -> list[Array]:
        names = self.names if self.names is not None else []
        if set(names) != set(grads) or self.names is None:
            raise ValueError(
                f"{role} has the names {list(grads)}, but {_params_of(role)} has {names or 'no names'}"
            )
        if len(set(names)) < len(names):
            raise ValueError(
                f"{role} is one dict, but params has a name in two groups ({names}): give a list of groups"
            )
        return [grads[name] for name in names]

    def _by_group(self, grads: Sequence[Mapping[str, Any]], role: str) -> list[Array]:
        if len(grads) != len(self.groups):
            raise ValueError(f"{role} has {len(grads)} groups, but params has {len(self.groups)}")
        flat: list[Array] = []
        for i, (group, part, size) in enumerate(zip(grads, self.groups, self.group_sizes, strict=True)):
            if "grads" not in group:
                raise ValueError(f"{role}[{i}] is a group without the key 'grads'")
            own = f"{role}[{i}]['grads']"
            arrays, _ = part.flatten(group["grads"], own)
            if not isinstance(arrays, (list, tuple)):
                raise TypeError(f"{own} has type {type(arrays).__name__}, expected a list of arrays")
            if len(arrays) != size:
                raise ValueError(f"{own} has {len(arrays)} arrays, but {_params_of(own)} has {size}")
            flat += arrays
        return flat

    def restore(self, arrays: list[Array]) -> Any:
        """A flat list in the shape the parameters were given in (groups as a flat list)."""
        if self.form == "array":
            return arrays[0]
        if self.form == "dict" and self.names is not None:
            return dict(zip(self.names, arrays, strict=True))
        return arrays


def _params_of(role: str) -> str:
    return role.replace("grads", "params")


def full_like(array: Array, fill: float, dtype: str | None = None) -> Array:
    """A new array of the same library, device, shape and order in memory."""
    return _new_like("full_like", array, fill, dtype=dtype)


def empty_like(array: Array) -> Array:
    """The same, with whatever stands in memory."""
    kind = type(array)
    if kind is np.ndarray:
        return np.empty_like(array)
    if kind.__module__ == "cupy" and kind.__name__ == "ndarray" and _is_usual(array):
        return kind(array.shape, array.dtype)  # keeps the host for less long than CuPy's empty_like
    return _new_like("empty_like", array)


def _is_usual(array: Array) -> bool:
    """Whether an array of CuPy's is in row-major order, and on the device that is the current one."""
    current = sys.modules["cupy"].cuda.runtime.getDevice()
    return bool(array.flags.c_contiguous and array.data.device_id == current)


def _new_like(make: str, array: Array, *fill: float, dtype: str | None = None) -> Array:
    library = _library(array)
    if library == "torch":
        torch = sys.modules["torch"]
        own = array.detach()
        return getattr(torch, make)(own, *fill, dtype=getattr(torch, dtype) if dtype else own.dtype)
    if library == "cupy":
        with array.device:  # else it would be the current one
            return getattr(sys.modules["cupy"], make)(array, *fill, dtype=dtype)
    if not isinstance(array, np.ndarray) and hasattr(array, "__array_namespace__"):
        return getattr(array.__array_namespace__(), make)(array, *fill, dtype=dtype)
    if hasattr(array, "__cuda_array_interface__"):
        name = type(array).__name__
        raise TypeError(
            f"there is no library to make another array like one of type {name} on a CUDA device: "
            "pass it as CuPy's, cupy.asarray(array)"
        )
    return getattr(np, make)(_view(array), *fill, dtype=dtype, order="K", subok=False)


def _library(array: Array) -> str:
    """Of the type, or of one that it is derived from; of no other than these two is more known."""
    modules = (kind.__module__.partition(".")[0] for kind in type(array).__mro__)
    return next((name for name in modules if name in {"torch", "cupy"}), "")


def _view(array: Array) -> Any:
    return np.asarray(array) if is_viewable(array) else np.from_dlpack(array)


def state_like(param: Array, fill: float, dtype: str | None) -> Array:
    """A state of a parameter, of ``dtype`` if that is of 16 bits."""
    return full_like(param, fill, dtype if dtype and _is_16_bit(param) else None)


def _is_16_bit(array: Array) -> bool:
    own = array if hasattr(array, "dtype") else _view(array)
    return str(own.dtype).endswith("float16")  # bfloat16, too


def duplicates(arrays: Arrays) -> Arrays:
    """Copies of their kind; of a ``memoryview``, which has none, an array of NumPy's."""
    if isinstance(arrays, (list, tuple)):
        return [duplicates(array) for array in arrays]
    return np.array(arrays) if isinstance(arrays, memoryview) else copy.deepcopy(arrays)


def result_like(array: Array, role: str, out: Array | None = None) -> Array:
    """Where to write a result: ``out``, or a new array like this one."""
    if out is not None:
        return out
    if type(array) is not np.ndarray:
        _core.check_array(array, role)
    return empty_like(array)
