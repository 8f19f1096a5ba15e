"""variance: sum((x − mean)²) / (n − correction), the spread of x; correction = 0 divides by n.

NaN where no more positions are seen than the correction, as in torch.
"""

from typing import Any

from gapstone.pools.definition import Parameter

m: Any = None  # the maths of the loop that is asking

empty = 0.0, 0.0, 0.0
state = "mean of x", "sum of (x − mean)²", "how many"
nothing = "NaN"
parameters = {"correction": Parameter(0.0, least=0.0)}
adds_up = False
weighted = True
reference = "mean"
source = "Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979"


def lift(x: Any, _correction: Any) -> Any:
    return x, x - x, 1.0  # 0; NaN where x is infinite, for the mean is so too


def terms(x: Any, mean: Any, _correction: Any) -> Any:
    return (x - mean) * (x - mean), 1.0


def combine(mean: Any, s: Any, n: Any, mean2: Any, s2: Any, n2: Any, _correction: Any) -> Any:
    part = m.where(n2 > 0.0, n2 / (n + n2), 0.0)
    between = mean2 - mean
    return mean + between * part, s + s2 + between * between * n * part, n + n2


def finish(_mean: Any, s: Any, n: Any, correction: Any) -> Any:
    return s / m.maximum(n - correction, 0.0)


def share(x: Any, _out: Any, mean: Any, _s: Any, n: Any, correction: Any) -> Any:
    return 2.0 * (x - mean) / m.maximum(n - correction, 0.0)
