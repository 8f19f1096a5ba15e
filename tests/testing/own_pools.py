"""Pools that a user could have written, and the same in other words."""

from math import inf

import gapstone as gs
from gapstone.pools import Parameter

m = None  # each loop binds its maths

POWER = 2.0


def lift(x):
    return 1.0 / x, 1.0


def combine(s, n, s2, n2):
    return s + s2, n + n2


def finish(s, n):
    return n / s


def share(x, out, _s, n):
    return out * out / (x * x * n)


HARMONIC = gs.Definition("harmonic", (0.0, 0.0), lift, combine, finish, share, adds_up=True, weighted=True, count=1)


def harmonic(x):
    return x.shape[-1] / (1 / x).sum(-1)


def power_lift(x, p):
    return m.pow(x, p), 1.0


def power_combine(s, n, s2, n2, p):
    return s + s2, n + n2


def power_finish(s, n, p):
    return m.pow(s / n, 1.0 / p)


def power_share(x, out, s, n, p):
    return m.pow(out, 1.0 - p) * m.pow(x, p - 1.0) / n


def power_slope(x, out, s, n, p):
    return out / p * (m.pow(x, p) * m.log(x) / s - m.log(s / n) / (p * n))


POWER_MEAN = gs.Definition(
    "power_mean", (0.0, 0.0), power_lift, power_combine, power_finish, power_share, slope=power_slope,
    parameters={"p": Parameter(default=3.0, least=0.5, most=10.0, learned=(0.5, 10.0))}, adds_up=True, weighted=True,
)  # fmt: skip


def power_mean(x, p=3.0):
    return (x**p).mean(-1) ** (1 / p)


def last_lift(x, i):
    return x, i


def last_combine(v, i, v2, i2):
    later = i2 > i
    return m.where(later, v2, v), m.where(later, i2, i)


def last_finish(v, i):
    return v


def last_share(x, i, out, v, winner):
    return m.where(i == winner, 1.0, 0.0)


SMALLEST_FIRST = gs.Definition(
    "last_position", (0.0, -1), last_lift, last_combine, last_finish, last_share, positional=True, adds_up=True
)


# wrong in one thing each


def wrong_share(x, out, _s, n):
    return out * out / (x * n)


def wrong_combine(s, n, s2, n2):
    return s + s2, n + n2 + 1.0


def lopsided(s, n, s2, n2):
    return s + 0.5 * s2, n + n2


def wrong_finish(s, n):
    return (n + 1.0) / s


def deaf_to_nan(x):
    return m.where(x == x, 1.0 / x, 0.0), 1.0


def wrong_slope(x, out, s, n, p):
    return out / p * m.pow(x, p) * m.log(x) / s


def wrong_terms(x, top, r):
    z = r * m.below(x, top)
    return m.exp(z) + 1e-9, m.expm1(z), 1.0


def scaled(x):
    return POWER * x, 1.0


def mean_finish(s, n):
    return s / n


def scaled_share(x, out, s, n):
    return POWER / n


SCALED = gs.Definition("scaled", (0.0, 0.0), scaled, combine, mean_finish, scaled_share, adds_up=True)


def largest_lift(x):
    return (x,)


def largest_combine(v, v2):
    return (m.maximum(v, v2),)


def largest_finish(v):
    return v


def largest_share(x, out, _v):
    return m.where(x == out, 1.0, 0.0)


LARGEST = gs.Definition("largest", (-inf,), largest_lift, largest_combine, largest_finish, largest_share, adds_up=True)
