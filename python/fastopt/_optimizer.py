"""The base class of all optimizers: parameters, hyper-parameters, step and checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from fastopt import _checks, _core, _hyperparams, _state_dict
from fastopt._array_utils import Array, deepcopy_arrays, state_like
from fastopt._concurrency import check_not_forked_in_step, no_concurrent_step, watch_forks
from fastopt._group import Group
from fastopt._hyperparams import HyperParams
from fastopt._options import DEFAULTS, StepOptions
from fastopt._params import Params
from fastopt._typing import Self

_COUNTS = ("step_count", "skipped_steps")


class Optimizer(HyperParams):
    """The base of :class:`SGD`, :class:`Adam` and the others; not for use by itself.

    Hyper-parameters and state are attributes. Further attributes are

    - ``step_count``: number of completed steps; settable. Adam's bias correction and learning-rate decay
      depend on it;
    - ``skipped_steps``: number of steps skipped for a NaN or an infinity, with ``on_nonfinite="skip"`` or
      ``"raise"``; not included in ``step_count``;
    - ``groups``: a :class:`Group` for each group of parameters; one if they were not given in groups.

    A group can override every hyper-parameter except those that apply to all gradients together
    (``clip_norm``, ``clip_eps``, ``clip_scope``, ``clip_norm_type`` and ``on_nonfinite``) and those fixed
    when the optimizer is created (``amsgrad``, ``form``, ``state_dtype`` and others). In a group these raise
    ``TypeError``.

    Only one thread at a time may step an optimizer. In a process forked during a step the arrays may be half
    written; the optimizer then raises ``RuntimeError`` until a state is loaded.

    >>> import numpy as np, fastopt
    >>> groups = [{"params": np.ones(3), "l2": 0.1, "clip_value": 1.0}, {"params": np.ones(2), "lr": 0.5}]
    >>> opt = fastopt.SGD(groups, lr=0.25, clip_norm=5.0, on_nonfinite="skip")
    >>> opt.lr = 0.125  # for the groups that do not override it
    >>> [group.lr for group in opt.groups]
    [0.125, 0.5]
    >>> for value in (1.0, np.inf, 2.0):
    ...     opt.step([np.full(3, value), np.ones(2)])
    >>> opt.step_count, opt.skipped_steps
    (2, 1)
    """

    _rule_descriptions: ClassVar[dict[str, str]] = {}  # the options that select each of its rules

    step_count: int
    skipped_steps: int
    groups: tuple[Group, ...]

    _params: Params
    _rule: str
    _states: dict[str, list[Array]]
    _constants: dict[str, Any]
    _hyperparams: dict[str, Any]
    _hyperparams_dirty: bool  # whether the stepper does not have them yet
    _stepper: _core.Stepper
    _forked_in_step: bool = False

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
        parsed = Params.parse(params)
        if callable(rule):
            rule = rule([{**hyper, **overrides} for overrides in parsed.overrides])
        slots = _core.RULES[rule]["states"]
        fixed = {**(fixed or {}), **({"state_dtype": state_dtype} if slots else {})}
        _checks.option_names(type(self).__name__, options, [*hyper, *fixed, *DEFAULTS])
        role = "param" if parsed.form == "array" else "params"
        _core.check_targets(parsed.arrays, role, parsed.label)
        if state_dtype not in (None, "float32"):
            raise ValueError(f"state_dtype must be None or 'float32', got {state_dtype!r}")
        initial = fixed.get("initial_accumulator", 0.0)
        states = {
            name: [state_like(p, initial if i == 0 else 0.0, state_dtype) for p in parsed.arrays]
            for i, name in enumerate(slots)
        }
        self._init(parsed, rule, states, {**DEFAULTS, **hyper, **options}, parsed.overrides, fixed)

    def _init(
        self,
        params: Params,
        rule: str,
        states: dict[str, list[Array]],
        hyperparams: dict[str, Any],
        overrides: list[dict[str, Any]],
        constants: dict[str, Any],
    ) -> None:
        self._params, self._rule, self._states, self._constants = params, rule, states, constants
        self._hyperparams = self._validate(hyperparams)
        groups: list[Group] = []
        for i, (values, indices) in enumerate(zip(overrides, params.group_slices(), strict=True)):
            try:
                groups.append(Group(self, values, indices))
            except (TypeError, ValueError) as e:
                raise type(e)(f"params[{i}]: {e}") from None
        self.__dict__["groups"] = tuple(groups)
        self._rebuild_stepper(states)
        self._stepper.check()
        self._hyperparams_changed()
        watch_forks(self)

    def _rebuild_stepper(self, states: dict[str, list[Array]]) -> None:
        """Create a new stepper over these lists. It detects later changes of their elements by itself."""
        params, old = self._params, self.__dict__.get("_stepper")
        if old is not None and not self._forked_in_step:
            old.require_idle()  # a step in progress would lose its count
        single = params.form == "array"
        stepper = _core.Stepper(
            self._rule,
            params.arrays,
            list(states.values()),
            params.group_sizes,
            params.label,
            "param" if single else "params",
            "grad" if single else "grads",
            persistent=True,
        )
        if old is not None:
            stepper.step_count, stepper.skipped_steps = old.step_count, old.skipped_steps
        self.__dict__.update(_states=states, _stepper=stepper, _hyperparams_dirty=True)  # atomically

    def _replace_state(self, name: str, arrays: list[Array]) -> None:
        """Replace a list of state. The next step checks shapes and types, as others may be replaced first."""
        expected = len(self._params.arrays)
        if len(arrays) != expected:
            raise ValueError(f"{name} has {len(arrays)} arrays, but params has {expected}")
        _core.check_targets(arrays, name, self._params.label)
        self._rebuild_stepper({**self._states, name: arrays})

    def _validate(self, values: dict[str, Any]) -> dict[str, Any]:
        return _hyperparams.validate(self._rule, values)

    def _validate_overrides(self, values: dict[str, Any]) -> dict[str, Any]:
        _hyperparams.check_group_options(type(self).__name__, self._rule, values, self._constants)
        return self._validate(values)

    # ---- attributes: hyper-parameters, state, counts ----

    # Classes declare all attributes, so that a type checker finds misspelled ones.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_"):  # pickle looks up private names on an empty object
                for values in (self._hyperparams, self._states, self._constants):
                    if name in values:
                        return values[name]
                if name in _COUNTS:
                    return getattr(self._stepper, name)
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")

        def __setattr__(self, name: str, value: Any) -> None:
            if name[:1] == "_" and name in Optimizer.__annotations__:
                object.__setattr__(self, name, value)
            elif name in self._hyperparams:
                self._update_hyperparams({name: value})
            elif name in self._states:
                self._replace_state(name, _state_dict.as_array_list(name, value))
            elif name in _COUNTS:
                setattr(self._stepper, name, _checks.count(name, value))
            elif name in self._constants:
                raise AttributeError(f"{name} is fixed when the optimizer is created")
            elif getattr(getattr(type(self), name, None), "fset", None):  # a property, betas
                object.__setattr__(self, name, value)
            else:
                _hyperparams.raise_not_settable(type(self).__name__, self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._hyperparams, *self._states, *self._constants, *_COUNTS]

    def _update_hyperparams(self, values: dict[str, Any]) -> None:
        new = self._validate(values)
        _hyperparams.update_or_rollback(self._hyperparams, new, self._hyperparams_changed)

    @property
    def params(self) -> Any:
        """The parameters, in the form in which they were passed (groups as one flat list).

        A list is shared with the optimizer: replacing an element makes later steps update the new array,
        keeping the old state. If its length changes, the next step raises ``ValueError``. A dict is created
        anew on each access, so that changing it has no effect.

        >>> import numpy as np, fastopt
        >>> opt = fastopt.SGD([np.ones(2)], lr=0.5)
        >>> w = opt.params[0] = np.zeros(2)
        >>> opt.step([np.ones(2)])
        >>> w
        array([-0.5, -0.5])
        """
        return self._params.unflatten(self._params.arrays)

    # ---- the step ----

    def step(self, grads: Any) -> None:
        """Step every parameter, in place.

        Args:
            grads: gradients in the form of ``params``: one array, a sequence, a dict with the same
                names, or a list of groups (dicts with ``grads``); a flat sequence for groups, too.
                Each has the shape and dtype of its parameter, in any layout. They are only read.

        ``skipped_steps`` shows whether the step was skipped. On a device, reading it waits for the device.

        Raises:
            TypeError, ValueError: an array that does not fit its parameter; nothing has been written.
            FloatingPointError: a NaN or an infinity, with ``on_nonfinite="raise"``; nothing has been written.
            RuntimeError: another thread is stepping this optimizer, or this process was forked while another
                thread stepped it; nothing has been written.
        """
        if self._hyperparams_dirty:
            self._push_hyperparams()
        if type(grads) is list and self._params.form == "list":
            self._stepper.step(grads)
        else:
            self._stepper.step(*self._params.flatten(grads))

    def _push_hyperparams(self) -> None:
        """Pass the hyper-parameters, which were checked when they were set, to the stepper."""
        check_not_forked_in_step(self)
        # Every step with a schedule comes here, so bypass __setattr__.
        self.__dict__["_hyperparams_dirty"] = False  # first, as another thread may set one meanwhile
        try:
            for i, group in enumerate(self.groups):
                self._stepper.set_hyper(i, {**self._hyperparams, **group._overrides})
            self._stepper.set_list_hyper(self._hyperparams)
        except BaseException:
            self.__dict__["_hyperparams_dirty"] = True
            raise

    def _hyperparams_changed(self) -> None:
        """Have the next step pass them on. A device gets them at once, as a replay of a graph may come next."""
        self.__dict__["_hyperparams_dirty"] = True
        if self._stepper.on_device:
            self._push_hyperparams()

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state, the counts and the hyper-parameters, from which :meth:`load_state_dict`
        resumes bit for bit. The parameters are not included; save them separately.

        If another thread steps the optimizer meanwhile, this and ``copy.deepcopy`` raise ``RuntimeError``.
        Pickling raises ``RuntimeError`` during a step but does not detect a step that starts while it is in
        progress.
        """
        check_not_forked_in_step(self)
        with no_concurrent_step(self._stepper):
            return {
                **self._identity(),
                "hyper": dict(self._hyperparams),
                "groups": [dict(group._overrides) for group in self.groups],
                "step_count": self.step_count,
                "skipped_steps": self.skipped_steps,
                "state": {name: deepcopy_arrays(arrays) for name, arrays in self._states.items()},
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state returned by :meth:`state_dict`. Raises ``ValueError`` or ``TypeError`` if it does not
        fit; the object is then unchanged.

        The state is written in place; its arrays may be NumPy arrays, as :mod:`fastopt.checkpoint` loads them.
        It does not fit an optimizer of another class or rule, or over other parameters."""
        _state_dict.check_rule(state, self._identity(), self._rule_descriptions)
        _state_dict.check_identity(state, self._identity())
        _state_dict.check_keys(state, ("hyper", "groups", *_COUNTS, "state"))
        counts = {name: _checks.count(name, state[name]) for name in _COUNTS}
        _state_dict.check_same_keys("state_dict's hyper", state["hyper"], self._hyperparams)
        hyperparams = self._validate(state["hyper"])
        _state_dict.check_length("groups", state["groups"], self.groups)
        for i, values in enumerate(state["groups"]):
            _checks.mapping(f"state_dict's groups[{i}]", values)
        overrides = [self._validate_overrides(values) for values in state["groups"]]
        _state_dict.check_same_keys("state_dict's state", state["state"], self._states)
        pairs = [
            pair
            for name, to in self._states.items()
            for pair in zip(to, _state_dict.convert_arrays(name, state["state"][name], to), strict=True)
        ]
        self._stepper.check()  # that all arrays are writable and no other thread steps

        for to, value in pairs:
            to[...] = value
        self._hyperparams.update(hyperparams)
        for group, values in zip(self.groups, overrides, strict=True):
            group._overrides = values
        self.step_count, self.skipped_steps = counts.values()
        self._forked_in_step = False
        self._hyperparams_changed()

    def _identity(self) -> dict[str, Any]:
        """Return the entries of a state that must equal those of the optimizer that loads it."""
        return {
            "optimizer": type(self).__name__,
            "rule": self._rule,
            "names": self._params.names,
            "group_sizes": list(self._params.group_sizes),
        }

    def __getstate__(self) -> dict[str, Any]:
        check_not_forked_in_step(self)
        self._stepper.require_idle()
        names = ("_params", "_rule", "_states", "_hyperparams", "_constants")
        return {
            **{name: getattr(self, name) for name in names},
            "overrides": [group._overrides for group in self.groups],
            "counts": (self.step_count, self.skipped_steps),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = ("_params", "_rule", "_states", "_hyperparams", "overrides", "_constants")
        self._init(*(state[name] for name in names))
        self.step_count, self.skipped_steps = state["counts"]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        clone = memo[id(self)] = type(self).__new__(type(self))
        with no_concurrent_step(self._stepper):
            clone.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return clone

    def __copy__(self) -> Self:
        raise TypeError("a shallow copy would share arrays but not the step count; use copy.deepcopy")

    def __repr__(self) -> str:
        values = self._hyperparams
        shown = {k: values[k] for k in _core.RULES[self._rule]["hyper"]} | self._constants
        shown |= {k: values[k] for k, default in DEFAULTS.items() if values[k] != default}
        text = ", ".join(f"{k}={v!r}" for k, v in shown.items())
        return f"{type(self).__name__}({len(self._params.arrays)} arrays, {text})"
