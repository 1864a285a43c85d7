"""Conversion of parameters and gradients between the forms that users pass and flat lists.

The forms are one array, a sequence, a dict name -> array, or a list of groups, each a dict with ``params`` and
the hyper-parameters that it overrides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

from fastopt._array_utils import Array, is_array

LabelFn = Callable[[str, int], str]  # the label of array i in messages, given the list's role


@dataclass
class Params:
    """A flat list of arrays, and the form in which they were passed."""

    arrays: list[Array]
    form: str  # "array", "list", "dict" or "groups"
    names: list[Any] | None = None  # of dict entries, for messages and checkpoints
    group_sizes: list[int] = field(default_factory=list)
    overrides: list[dict[str, Any]] = field(default_factory=list)  # one dict per group
    groups: list[Params] = field(default_factory=list)  # forms and names without arrays

    @classmethod
    def parse(cls, params: object, role: str = "params") -> Params:
        if isinstance(params, Mapping):
            arrays = list(params.values())
            return cls(arrays, "dict", list(params), [len(arrays)], [{}])
        if is_array(params):
            return cls([params], "array", None, [1], [{}])
        items = _as_items(params)
        if items is None:
            is_module = hasattr(params, "named_parameters")  # torch's
            raise TypeError(
                f"{role} has type {type(params).__name__}, expected an array, a sequence, "
                "a dict of arrays, or a list of groups"
                + ("; pass dict(model.named_parameters())" if is_module else "")
            )
        if items and all(isinstance(item, Mapping) for item in items):
            return cls._parse_groups(items)
        return cls(items, "list", None, [len(items)], [{}])

    @classmethod
    def _parse_groups(cls, groups: list[Mapping[str, Any]]) -> Params:
        parsed = cls([], "groups")
        for i, group in enumerate(groups):
            if "params" not in group:
                raise ValueError(
                    f"params[{i}] has no key 'params', expected a group as in "
                    "[{'params': [...], 'lr': 0.1}]"
                )
            role = f"params[{i}]['params']"
            part = cls.parse(group["params"], role)
            if part.form == "groups":
                raise TypeError(f"{role} holds groups, expected arrays")
            parsed.arrays += part.arrays
            parsed.groups.append(replace(part, arrays=[]))
            parsed.group_sizes.append(len(part.arrays))
            parsed.overrides.append({k: v for k, v in group.items() if k != "params"})
        if any(part.names is not None for part in parsed.groups):
            parsed.names = []
            for part, indices in zip(parsed.groups, parsed.group_slices(), strict=True):
                parsed.names += part.names or range(indices.start, indices.stop)
        return parsed

    def group_slices(self) -> list[slice]:
        """Return the slice of the list that each group occupies."""
        ends = list(accumulate(self.group_sizes, initial=0))
        return [slice(a, b) for a, b in pairwise(ends)]

    def label(self, role: str, i: int) -> str:
        """Return the label of array ``i`` for messages, such as ``params[0]['params'][2]`` or ``grads[2]``."""
        if self.form != "groups":
            return self.item_label(role, i)
        return self.group_label(role, i) if role == "params" else f"{role}[{i}]"

    def item_label(self, role: str, i: int) -> str:
        """Return the label of an item of a list or a dict."""
        return f"{role}[{i if self.names is None else self.names[i]!r}]"

    def group_label(self, role: str, i: int) -> str:
        """Return the label in a list of groups, whose key for the arrays is the role."""
        slices = self.group_slices()
        n = next(n for n, indices in enumerate(slices) if i < indices.stop)
        prefix, group = f"{role}[{n}][{role!r}]", self.groups[n]
        return prefix if group.form == "array" else group.item_label(prefix, i - slices[n].start)

    def flatten(
        self, grads: Any, role: str = "grads", reference: str = "params"
    ) -> tuple[Any, LabelFn]:
        """Return gradients, in the form of the parameters or flat, as a flat sequence, and their labels.

        ``role`` and ``reference`` are the names of the gradients and the parameters in messages.
        """
        if self.form == "array":
            one = is_array(grads) or not isinstance(grads, (list, tuple))
            return [grads] if one else grads, self.label
        if isinstance(grads, Mapping):
            return self.by_name(grads, role, reference), self.item_label
        if not isinstance(grads, (list, tuple)) and not is_array(grads):
            items = _as_items(grads)
            grads = grads if items is None else items
        if self.form == "groups" and grads and all(isinstance(g, Mapping) for g in grads):
            return self._by_group(grads, role, reference), self.group_label
        return grads, self.label  # Stepper.step reports what is wrong with it

    def by_name(self, arrays: Mapping[Any, Array], role: str, reference: str) -> list[Array]:
        """Return the arrays of a dict in the order of the parameters of the same names."""
        names = self.names if self.names is not None else []
        if set(names) != set(arrays) or self.names is None:
            raise ValueError(
                f"{role} has names {list(arrays)}, but {reference} has {names or 'no names'}"
            )
        if len(set(names)) < len(names):
            raise ValueError(
                f"{role} is a dict, but two groups of {reference} have the same name ({names}); "
                "pass a list of groups in the same order"
            )
        return [arrays[name] for name in names]

    def _by_group(self, grads: Sequence[Mapping[str, Any]], role: str, reference: str) -> list[Array]:
        if len(grads) != len(self.groups):
            raise ValueError(f"{role} has {len(grads)} groups, but {reference} has {len(self.groups)}")
        flat: list[Array] = []
        for i, (group, part, size) in enumerate(zip(grads, self.groups, self.group_sizes, strict=True)):
            if "grads" not in group:
                raise ValueError(
                    f"{role}[{i}] has no key 'grads', expected a group as in [{{'grads': [...]}}]"
                )
            part_role, part_reference = f"{role}[{i}]['grads']", f"{reference}[{i}]['params']"
            arrays, _ = part.flatten(group["grads"], part_role, part_reference)
            if not isinstance(arrays, (list, tuple)):
                raise TypeError(
                    f"{part_role} has type {type(arrays).__name__}, expected a list of arrays"
                )
            if len(arrays) != size:
                raise ValueError(
                    f"{part_role} has {len(arrays)} arrays, but {part_reference} has {size}"
                )
            flat += arrays
        return flat

    def unflatten(self, arrays: list[Array]) -> Any:
        """Return a flat list in the form in which the parameters were passed (groups as a flat list)."""
        if self.form == "array":
            return arrays[0]
        if self.form == "dict" and self.names is not None:
            return dict(zip(self.names, arrays, strict=True))
        return arrays


def _as_items(collection: object) -> list[Any] | None:
    """Return the items of a collection of arrays or groups; ``None`` for other objects, also iterable ones such
    as a pandas table, which yields the names of its columns."""
    if not isinstance(collection, Iterable):
        return None
    items = list(collection)
    if isinstance(collection, (list, tuple, Iterator)) or not items:
        return items  # messages name unsuitable items by their index
    return items if any(isinstance(item, Mapping) or is_array(item) for item in items) else None
