"""The parameter table for tests of steps: every rule with every convention, and every option that applies
around a rule. A case can be stepped with its class, with functions, and with the reference."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastopt
import reference
from fastopt import _core
from fastopt import functional as F
from tolerance import DTYPES, wide

RULES = {name: info["states"] for name, info in _core.RULES.items() if not name.startswith("move")}

# Options of a class's constructor that a step function infers from its arrays.
MADE_WITH = ("amsgrad", "centered", "initial_accumulator")


@dataclass(frozen=True)
class Case:
    id: str
    rule: str  # as in _core.RULES
    cls: type[fastopt.Optimizer]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.id

    @property
    def hyper(self) -> dict[str, Any]:
        """The options that are passed to a step, not only to the constructor."""
        told = {k: v for k, v in self.options.items() if k not in MADE_WITH}
        if "betas" in told:
            told["beta1"], told["beta2"] = told.pop("betas")
        return told

    def make(self, params, state_dtype=None) -> fastopt.Optimizer:
        wide_state = {} if self.cls is fastopt.SGD else {"state_dtype": state_dtype}
        return self.cls(params, **self.options, **wide_state)

    def states(self, opt) -> dict[str, list[np.ndarray]]:
        return {name: getattr(opt, name) for name in RULES[self.rule]}

    def step_function(self, params, grads, states, t) -> bool:
        """Step number t through fastopt.functional."""
        step = _FUNCTIONS[self.cls]
        counted = {} if self.cls in (fastopt.SGD, fastopt.RMSprop) else {"step": t}
        return step(params, grads, **states, **self.hyper, **counted)

    def reference(self, params, grads, states, t):
        """New parameters and states in float64 after one step from these stored values."""
        hyper = {k: v for k, v in self.hyper.items() if k != "form"}
        per_param = [
            {name: wide(arrays[i]) for name, arrays in states.items()} for i in range(len(params))
        ]
        new = reference.step(
            self.rule, [wide(p) for p in params], [wide(g) for g in grads], per_param, t, **hyper
        )
        return new, {name: [s[name] for s in per_param] for name in states}

    @property
    def penalised(self) -> bool:
        return bool(self.options.get("l1") or self.options.get("l2"))


_FUNCTIONS = {
    fastopt.SGD: F.sgd_step,
    fastopt.Momentum: F.momentum_step,
    fastopt.Nesterov: F.nesterov_step,
    fastopt.AdaGrad: F.adagrad_step,
    fastopt.RMSprop: F.rmsprop_step,
    fastopt.Adam: F.adam_step,
    fastopt.AdamW: F.adam_step,
}

# ---- every convention of every rule ----

_VELOCITY = {
    "": {},
    "lr-outside": {"lr_in_velocity": False},
    "dampened": {"dampening": 0.25},
    "dampened-from-zero": {"dampening": 0.25, "first_step": "zero"},
    "no-momentum": {"momentum": 0.0},
}
_EPS = {"": {}, "eps-inside": {"eps_mode": "inside", "eps": 1e-3}}
_RMS_MOMENTUM = {"momentum": 0.9}


def _variants() -> list[Case]:
    rows: list[tuple[str, type, dict, dict]] = [
        ("sgd", fastopt.SGD, {}, {"": {}}),
        ("momentum", fastopt.Momentum, {}, _VELOCITY),
        ("nesterov", fastopt.Nesterov, {"form": "applied"}, _VELOCITY),
        ("momentum", fastopt.Nesterov, {"form": "lookahead"}, {"lookahead": {}}),
        (
            "adagrad",
            fastopt.AdaGrad,
            {},
            {
                **_EPS,
                "accumulator": {"initial_accumulator": 0.1},
                "lr-decay": {"lr_decay": 0.5},
            },
        ),
        ("rmsprop", fastopt.RMSprop, {}, {**_EPS, "accumulator": {"initial_accumulator": 1.0}}),
        ("rmsprop_centered", fastopt.RMSprop, {"centered": True}, _EPS),
        (
            "rmsprop_momentum",
            fastopt.RMSprop,
            _RMS_MOMENTUM,
            {**_EPS, "lr-inside": {"lr_in_velocity": True}},
        ),
        (
            "rmsprop_centered_momentum",
            fastopt.RMSprop,
            {"centered": True, **_RMS_MOMENTUM},
            {**_EPS, "lr-inside": {"lr_in_velocity": True}},
        ),
        (
            "adam",
            fastopt.Adam,
            {},
            {
                "": {},
                "betas": {"betas": (0.5, 0.75)},
                "eps-hat": {"eps_mode": "hat", "eps": 1e-3},
                "eps-root": {"eps_root": 1e-3},
                "uncorrected": {"bias_correction": False},
                "nesterov": {"nesterov": True},
                "nesterov-hat": {"nesterov": True, "eps_mode": "hat"},
                "nesterov-uncorrected": {"nesterov": True, "bias_correction": False},
            },
        ),
        (
            "adam_amsgrad",
            fastopt.Adam,
            {"amsgrad": True},
            {
                "": {},
                "corrected": {"amsgrad_max": "corrected", "betas": (0.9, 0.9)},
                "hat": {"eps_mode": "hat", "eps": 1e-3},
                "forgetful": {"betas": (0.9, 0.25)},  # so that v falls and the maximum matters
            },
        ),
        ("adam", fastopt.AdamW, {}, {"adamw": {"weight_decay": 0.5}}),
    ]
    return [
        Case("-".join(filter(None, (rule, name))), rule, cls, {"lr": 0.02, **base, **options})
        for rule, cls, base, variants in rows
        for name, options in variants.items()
    ]


VARIANTS = _variants()

# ---- options that apply around any rule ----

AROUND: dict[str, dict[str, Any]] = {
    "maximize": {"maximize": True},
    "unscale": {"grad_scale": 3.0},
    "clip-value": {"clip_value": 0.75},
    "clip-norm": {"clip_norm": 2.0},
    "clip-norm-no-eps": {"clip_norm": 2.0, "clip_eps": 0.0},
    "clip-norm-loose": {"clip_norm": 1e6},
    "clip-norm-one": {"clip_norm": 2000.0, "clip_norm_type": 1},
    "clip-norm-max": {"clip_norm": 0.5, "clip_norm_type": "max"},
    "clip-tensor": {"clip_norm": 20.0, "clip_scope": "tensor"},
    "clip-tensor-max": {"clip_norm": 0.5, "clip_scope": "tensor", "clip_norm_type": float("inf")},
    "l1": {"l1": 0.25},
    "l1-proximal": {"l1": 0.25, "l1_mode": "proximal"},
    "l2": {"l2": 0.25},
    "decay": {"weight_decay": 0.5},
    "decay-after": {"weight_decay": 0.5, "decay_order": "after"},
    "decay-whole": {"weight_decay": 0.01, "decay_scale": "none"},
    "decay-whole-after": {"weight_decay": 0.01, "decay_scale": "none", "decay_order": "after"},
}
EVERYTHING = {
    "maximize": True,
    "grad_scale": 0.5,
    "clip_value": 1.5,
    "clip_norm": 40.0,
    "l1": 0.25,
    "l2": 0.125,
    "weight_decay": 0.5,
    "decay_order": "after",
}
PLAIN = {case.rule: case for case in reversed(VARIANTS)}  # the first of each rule


def around(case: Case, name: str, options: dict[str, Any]) -> Case:
    return Case(f"{case.id}+{name}", case.rule, case.cls, {**case.options, **options})


AROUND_CASES = [around(PLAIN[rule], n, o) for rule in ("sgd", "adam") for n, o in AROUND.items()]
EVERYTHING_CASES = [around(case, "everything", EVERYTHING) for case in PLAIN.values()]
CASES = [*VARIANTS, *AROUND_CASES, *EVERYTHING_CASES]

# ---- arrays to step ----

# Dtypes of parameters and of state: 16-bit parameters may have float32 state.
STORAGES = {
    **{name: (dtype, None) for name, dtype in DTYPES.items()},
    "float16+float32": (DTYPES["float16"], "float32"),
    "bfloat16+float32": (DTYPES["bfloat16"], "float32"),
}
TILE = 512  # a multiple of kMaxTile in csrc/cpu/kernels.hpp


def parameters(rng, lengths, dtype) -> list[np.ndarray]:
    """Random parameters of either sign and away from zero. No step crosses zero, so that no result is a small
    difference of large terms, for which no bound in ULPs could hold."""
    signs = [rng.choice([-1.0, 1.0], n) for n in lengths]
    return [(s * rng.uniform(1.0, 4.0, len(s))).astype(dtype) for s in signs]


def gradients(rng, params, case: Case | None = None) -> list[np.ndarray]:
    """Nonzero gradients. Gradient and penalty have the same sign, so that they do not cancel."""
    grads = []
    for p in params:
        g = rng.uniform(0.25, 2.0, p.shape)
        if case is not None and case.penalised:
            g *= np.sign(wide(p)) * (-1 if case.options.get("maximize") else 1)
        else:
            g *= rng.choice([-1.0, 1.0], p.shape)
        grads.append(g.astype(p.dtype))
    return grads


def image(*groups) -> str:
    """A digest of all bytes of lists of arrays, to compare with equality."""
    digest = hashlib.blake2b()
    for group in groups:
        for array in group:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
