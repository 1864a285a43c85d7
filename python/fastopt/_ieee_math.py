"""Elementary functions from IEEE operations only. Results of two libms may differ by an ulp; sums and products,
which IEEE 754 rounds in one way, are the same everywhere.

They take floats or float64 NumPy arrays and are accurate to a few units in the last place, except
:func:`sin_pi` near 0 and :func:`power`. The error of :func:`power` doubles with each squaring, up to one unit
per unit of the exponent: 58 at 0.999**1000, 5,069 at 0.999999**1000000. For a fractional exponent it grows by
as many units as the logarithm of the power.
"""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np

PI, LN_2, SQRT_HALF = 3.141592653589793, 0.6931471805599453, 0.7071067811865476
# ln 2 in two parts. The first ends in zeros, so that its products with exponents are exact.
LN_2_HIGH, LN_2_LOW = float.fromhex("0x1.62e42feep-1"), 1.9082149292705877e-10

# Taylor coefficients, lowest power first, as many as the last place of a double needs.
ATANH = [1 / (2 * k + 1) for k in range(11)]  # in s**2, up to 0.03
EXP = [1 / factorial(k) for k in range(14)]  # in r, up to ln(2) / 2
COS = [(-1) ** k / factorial(2 * k) for k in range(9)]  # in x**2, x up to pi / 4
SIN = [(-1) ** k / factorial(2 * k + 1) for k in range(9)]


def polynomial(coefficients: list[float], x: Any) -> Any:
    """Evaluate a polynomial by Horner's scheme; the constant coefficient is the first."""
    value = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value


def log(x: Any) -> Any:
    """The natural logarithm of normal positive numbers: with x = m 2**e and s = (m - 1) / (m + 1), it is
    e ln 2 + 2 atanh s."""
    m, e = np.frexp(x)
    low = m < SQRT_HALF
    m, e = np.where(low, 2.0 * m, m), e - low
    s = (m - 1.0) / (m + 1.0)
    return e * LN_2 + 2.0 * s * polynomial(ATANH, s * s)


@np.errstate(under="ignore")  # where the result is 0 or subnormal, whatever np.seterr says
def exp(x: Any) -> Any:
    """e**x, for x up to 700: with an integer k and \\|r\\| <= ln 2 / 2, e**(k ln 2 + r) = 2**k e**r."""
    x = np.maximum(x, -800.0)  # e**-800 is already 0
    k = np.rint(x / LN_2)
    return np.ldexp(polynomial(EXP, (x - k * LN_2_HIGH) - k * LN_2_LOW), k.astype(np.int32))


def power(base: float, exponent: float) -> float:
    """base**exponent for base and exponent of 0 or more. The integer part of the exponent is taken by repeated
    squaring, as in the kernels for powers of beta."""
    n = int(exponent)
    value = float(exp((exponent - n) * log(base))) if base and exponent != n else 1.0
    if not base and exponent:
        return 0.0
    while n:
        value = value * base if n & 1 else value
        base, n = base * base, n >> 1
    return value


@np.errstate(under="ignore")  # of squares of tiny numbers
def cos_pi(t: Any) -> Any:
    """cos(pi t); exact where t is a multiple of 1/2."""
    quarter = np.rint(2.0 * t)
    x = PI * (t - 0.5 * quarter)
    c, s = polynomial(COS, x * x), x * polynomial(SIN, x * x)
    return np.choose(quarter.astype(np.int64) % 4, [c, -s, -c, s])


def sin_pi(t: Any) -> Any:
    """sin(pi t), as cos(pi (t - 1/2)); exact where t is a multiple of 1/2. Its absolute error is about 1e-17,
    so that small t have large relative errors: 638 ulp at 1e-4."""
    return cos_pi(t - 0.5)


# Wichura 1988, Algorithm AS 241 (PPND16), Applied Statistics 37: numerators and denominators for the middle,
# \|u - 1/2\| <= 0.425, in 0.425**2 - (u - 1/2)**2, and for the two parts of the tails, with
# r = sqrt(-log(tail)): in r - 1.6 for r <= 5, in r - 5 beyond.
MIDDLE = (
    [
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ],
    [
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ],
)
TAIL = (
    [
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ],
    [
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ],
)
FAR_TAIL = (
    [
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ],
    [
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ],
)


def _ratio(fit: tuple[list[float], list[float]], x: Any) -> Any:
    return polynomial(fit[0], x) / polynomial(fit[1], x)


def normal_quantile(u: Any) -> Any:
    """Quantile function of the standard normal distribution for an array ``u`` in (0, 1)."""
    q = u - 0.5
    value = q * _ratio(MIDDLE, 0.180625 - q * q)
    outer = np.abs(q) > 0.425
    side, tail = q[outer], np.minimum(u[outer], 1.0 - u[outer])
    r = np.sqrt(-log(tail))
    size = np.where(r <= 5.0, _ratio(TAIL, r - 1.6), _ratio(FAR_TAIL, r - 5.0))
    value[outer] = np.copysign(size, side)
    return value
