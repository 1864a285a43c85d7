"""What all optimizers share: their arrays, their hyper-parameters, a step, a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from fastopt import _checks, _core, _hyperparams, _state_dict
from fastopt._array_utils import Array, deepcopy_arrays, state_like
from fastopt._group import Group
from fastopt._guard import undisturbed
from fastopt._hyperparams import BETAS, Shared
from fastopt._options import DEFAULTS, StepOptions
from fastopt._params import Params
from fastopt._typing import Self

_COUNTS = ("step_count", "skipped_steps")


class Optimizer(Shared):
    """The base of :class:`SGD`, :class:`Adam` and the others; not for use by itself.

    Hyper-parameters and state are attributes, and besides them

    - ``step_count``: steps that were made. It may be set: what depends on the step (Adam's bias
      correction, a decay of the rate) goes by it;
    - ``skipped_steps``: those that were not, for a NaN or an infinity with ``on_nonfinite="skip"`` or
      ``"raise"``; ``step_count`` leaves them out;
    - ``groups``: a :class:`Group` for each group of the parameters; one if they were not given in groups.

    A group may have its own value of every hyper-parameter but those that look at all gradients at once,
    ``clip_norm``, ``clip_eps``, ``clip_scope``, ``clip_norm_type`` and ``on_nonfinite``, and those fixed
    when the optimizer is made (``amsgrad``, ``form``, ``state_dtype`` and the like): these belong to the
    whole, and in a group they raise ``TypeError``.

    >>> import numpy as np, fastopt
    >>> groups = [{"params": np.ones(3), "l2": 0.1, "clip_value": 1.0}, {"params": np.ones(2), "lr": 0.5}]
    >>> opt = fastopt.SGD(groups, lr=0.25, clip_norm=5.0, on_nonfinite="skip")
    >>> opt.lr = 0.125  # of the groups that have none of their own
    >>> [group.lr for group in opt.groups]
    [0.125, 0.5]
    >>> for value in (1.0, np.inf, 2.0):
    ...     opt.step([np.full(3, value), np.ones(2)])
    >>> opt.step_count, opt.skipped_steps
    (2, 1)
    """

    _kinds: ClassVar[dict[str, str]] = {}  # the options that choose each of its rules

    step_count: int
    skipped_steps: int
    groups: tuple[Group, ...]

    _layout: Params
    _rule: str
    _states: dict[str, list[Array]]
    _constants: dict[str, Any]
    _hyper: dict[str, Any]
    _stepper: _core.Stepper
    _stale: bool

    def __init__(
        self,
        params: Any,
        rule: str | Callable[[list[dict[str, Any]]], str],
        hyper: dict[str, Any],
        options: StepOptions,
        *,
        fixed: dict[str, Any] | None = None,
        state_dtype: str | None = None,
    ) -> None:
        layout = Params.parse(params)
        if callable(rule):
            rule = rule([{**hyper, **own} for own in layout.overrides])
        slots = _core.RULES[rule]["states"]
        fixed = {**(fixed or {}), **({"state_dtype": state_dtype} if slots else {})}
        _checks.option_names(type(self).__name__, options, [*hyper, *fixed, *DEFAULTS])
        role = "param" if layout.form == "array" else "params"
        _core.check_targets(layout.arrays, role, layout.label)
        if state_dtype not in (None, "float32"):
            raise ValueError(f"state_dtype must be None or 'float32', got {state_dtype!r}")
        initial = fixed.get("initial_accumulator", 0.0)
        states = {
            name: [state_like(p, initial if i == 0 else 0.0, state_dtype) for p in layout.arrays]
            for i, name in enumerate(slots)
        }
        self._build(layout, rule, states, {**DEFAULTS, **hyper, **options}, layout.overrides, fixed)

    def _build(
        self,
        layout: Params,
        rule: str,
        states: dict[str, list[Array]],
        hyper: dict[str, Any],
        own: list[dict[str, Any]],
        fixed: dict[str, Any],
    ) -> None:
        keep = self.__dict__
        keep.update(_layout=layout, _rule=rule, _states=states, _constants=fixed)
        keep["_hyper"] = self._checked(hyper)
        groups: list[Group] = []
        for i, (values, part) in enumerate(zip(own, layout.group_slices(), strict=True)):
            try:
                groups.append(Group(self, values, part))
            except (TypeError, ValueError) as e:
                raise type(e)(f"params[{i}]: {e}") from None
        keep["groups"] = tuple(groups)
        self._assemble(states)
        self._stepper.check()
        self._hyper_changed()

    def _assemble(self, states: dict[str, list[Array]]) -> None:
        """A new stepper over these lists; it notices later changes *in* them itself."""
        layout, old = self._layout, self.__dict__.get("_stepper")
        if old is not None:
            old.require_idle()  # its count would be lost
        single = layout.form == "array"
        stepper = _core.Stepper(
            self._rule,
            layout.arrays,
            list(states.values()),
            layout.group_sizes,
            layout.label,
            "param" if single else "params",
            "grad" if single else "grads",
            persistent=True,
        )
        if old is not None:
            stepper.step_count, stepper.skipped_steps = old.step_count, old.skipped_steps
        self.__dict__.update(_states=states, _stepper=stepper, _stale=True)

    def _replace_state(self, name: str, arrays: list[Array]) -> None:
        """Shapes and types are for the next step to check: other arrays may be about to follow."""
        expected = len(self._layout.arrays)
        if len(arrays) != expected:
            raise ValueError(f"{name} has {len(arrays)} arrays, but params has {expected}")
        _core.check_targets(arrays, name, self._layout.label)
        self._assemble({**self._states, name: arrays})

    def _is_hyper(self, name: str) -> bool:
        return name in self._hyper or (name == BETAS and "beta1" in self._hyper)

    def _checked(self, values: dict[str, Any]) -> dict[str, Any]:
        return _hyperparams.checked(self._rule, values)

    def _checked_own(self, values: dict[str, Any]) -> dict[str, Any]:
        """A group's values."""
        _hyperparams.check_own(type(self).__name__, self._rule, values, self._constants)
        return self._checked(values)

    # ---- attributes: hyper-parameters, state, counts ----

    if not TYPE_CHECKING:  # all there is stands in the classes, so a checker sees what is misspelt

        def __getattr__(self, name: str) -> Any:
            keep = self.__dict__
            for place in ("_hyper", "_states", "_constants"):
                if name in keep.get(place, ()):
                    return keep[place][name]
            if name == BETAS and "beta1" in keep.get("_hyper", ()):
                return (keep["_hyper"]["beta1"], keep["_hyper"]["beta2"])
            if name in _COUNTS and "_stepper" in keep:
                return getattr(keep["_stepper"], name)
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")

        def __setattr__(self, name: str, value: Any) -> None:
            if self._is_hyper(name):
                _hyperparams.take_up(self._hyper, self._checked({name: value}), self._hyper_changed)
            elif name in self._states:
                self._replace_state(name, _state_dict.as_array_list(name, value))
            elif name in _COUNTS:
                setattr(self._stepper, name, _checks.count(name, value))
            elif name in self._constants:
                raise AttributeError(f"{name} is fixed when the optimizer is made")
            else:
                _hyperparams.refuse_to_set(type(self).__name__, self, name)

    def __dir__(self) -> list[str]:
        betas = [BETAS] if self._is_hyper(BETAS) else []
        own = [*self._hyper, *betas, *self._states, *self._constants, *_COUNTS]
        return [*super().__dir__(), *own]

    @property
    def params(self) -> Any:
        """The parameters, in the form they were given in (groups as one flat list).

        A list is the optimizer's own: an array put in the place of another is stepped from then on, with the
        state of the one before, and a list of another length is refused by the next step. A dict is made
        anew each time, so what is put into it changes nothing here.

        >>> import numpy as np, fastopt
        >>> opt = fastopt.SGD([np.ones(2)], lr=0.5)
        >>> w = opt.params[0] = np.zeros(2)
        >>> opt.step([np.ones(2)])
        >>> w
        array([-0.5, -0.5])
        """
        return self._layout.unflatten(self._layout.arrays)

    # ---- the step ----

    def step(self, grads: Any) -> None:
        """Step every parameter, in place.

        Args:
            grads: gradients in the form of ``params``: one array, a sequence, a dict with the same
                names, or a list of groups (dicts with ``grads``); for groups a flat sequence does too.
                Each has the shape and dtype of its parameter; they are only read, in any layout.

        ``skipped_steps`` tells whether the step was skipped; where a device decides that, reading it waits for
        the device.

        Raises:
            TypeError, ValueError: an array that does not fit its parameter; nothing has been written.
            FloatingPointError: a NaN or an infinity, with ``on_nonfinite="raise"``; likewise.
        """
        if self._stale:
            self._push()
        if type(grads) is list and self._layout.form == "list":
            self._stepper.step(grads)
        else:
            self._stepper.step(*self._layout.flatten(grads))

    def _push(self) -> None:
        """Hand the hyper-parameters down; they were checked when they were set."""
        self.__dict__["_stale"] = False  # first: another thread may set one meanwhile
        try:
            for i, group in enumerate(self.groups):
                self._stepper.set_hyper(i, {**self._hyper, **group._own})
            self._stepper.set_list_hyper(self._hyper)
        except BaseException:
            self.__dict__["_stale"] = True
            raise

    def _hyper_changed(self) -> None:
        """The next step hands them down. A device is told at once: what comes next may be a graph's replay."""
        self.__dict__["_stale"] = True
        if self._stepper.on_device:
            self._push()

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """All that a later :meth:`load_state_dict` needs to go on to the bit: state (copied), counts,
        hyper-parameters. The parameters themselves are the caller's to save.

        A step of another thread while they are copied raises ``RuntimeError``, here and in ``copy.deepcopy``.
        A pickle is refused in the middle of a step, but does not notice one that begins while it is written.
        """
        with undisturbed(self._stepper):
            return {
                **self._identity(),
                "hyper": dict(self._hyper),
                "groups": [dict(group._own) for group in self.groups],
                "step_count": self.step_count,
                "skipped_steps": self.skipped_steps,
                "state": {name: deepcopy_arrays(arrays) for name, arrays in self._states.items()},
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a :meth:`state_dict`, in place; its arrays may be NumPy's, as :mod:`fastopt.checkpoint` reads
        them. Everything is checked first: an optimizer of another kind, or over other parameters, raises
        ``ValueError`` and changes nothing."""
        _state_dict.check_rule(state, self._identity(), self._kinds)
        _state_dict.check_identity(state, self._identity())
        _state_dict.check_keys(state, ("hyper", "groups", *_COUNTS, "state"))
        counts = {name: _checks.count(name, state[name]) for name in _COUNTS}
        _state_dict.check_same_keys("hyper", state["hyper"], self._hyper)
        hyper = self._checked(state["hyper"])
        _state_dict.check_length("groups", state["groups"], self.groups)
        for i, own in enumerate(state["groups"]):
            _checks.mapping(f"state_dict's groups[{i}]", own)
        groups = [self._checked_own(own) for own in state["groups"]]
        _state_dict.check_same_keys("state", state["state"], self._states)
        pairs = [
            pair
            for name, to in self._states.items()
            for pair in zip(to, _state_dict.convert_arrays(name, state["state"][name], to), strict=True)
        ]
        self._stepper.check()  # all can be written, and no other thread steps

        for to, value in pairs:
            to[...] = value
        self._hyper.update(hyper)
        for group, own in zip(self.groups, groups, strict=True):
            group.__dict__["_own"] = own
        self.step_count, self.skipped_steps = counts.values()
        self._hyper_changed()

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree in with the optimizer that loads it."""
        return {
            "optimizer": type(self).__name__,
            "rule": self._rule,
            "names": self._layout.names,
            "group_sizes": list(self._layout.group_sizes),
        }

    def __getstate__(self) -> dict[str, Any]:
        self._stepper.require_idle()
        keep = ("_layout", "_rule", "_states", "_hyper", "_constants")
        return {
            **{name: self.__dict__[name] for name in keep},
            "own": [group._own for group in self.groups],
            "counts": (self.step_count, self.skipped_steps),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        parts = ("_layout", "_rule", "_states", "_hyper", "own", "_constants")
        self._build(*(state[name] for name in parts))
        self.step_count, self.skipped_steps = state["counts"]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = type(self).__new__(type(self))
        with undisturbed(self._stepper):
            twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def __copy__(self) -> Self:
        raise TypeError(
            "a shallow copy would step the same arrays with a count of its own; use copy.deepcopy"
        )

    def __repr__(self) -> str:
        own = {k: self._hyper[k] for k in _core.RULES[self._rule]["hyper"]}
        changed = {k: v for k, v in DEFAULTS.items() if self._hyper[k] != v}
        shown = {**own, **self._constants, **{k: self._hyper[k] for k in changed}}
        values = ", ".join(f"{k}={v!r}" for k, v in shown.items())
        return f"{type(self).__name__}({len(self._layout.arrays)} arrays, {values})"
