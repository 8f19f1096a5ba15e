"""std: sqrt(sum((x − mean)²) / (n − correction)), the standard deviation; correction = 0 divides by n.

NaN where no more positions are seen than the correction, as in torch. Where all x are equal the gradient is 0. A
position below the mean lowers the answer: shares may be negative, and still add up.
"""

from typing import Any

from gapstone.pools.variance import combine as combine
from gapstone.pools.variance import empty as empty
from gapstone.pools.variance import lift as lift
from gapstone.pools.variance import parameters as parameters
from gapstone.pools.variance import state as state
from gapstone.pools.variance import terms as terms

m: Any = None  # the maths of the loop that is asking

nothing = "NaN"
adds_up = True
weighted = True
reference = "mean"
source = "Snyder, Garcia-Romero, Povey, Khudanpur: statistics pooling, Interspeech 2017"


def finish(_near: Any, d: Any, s: Any, n: Any, correction: Any) -> Any:
    variance = m.maximum(s - d * d / n, 0.0) / m.maximum(n - correction, 0.0)
    # the root has no slope at 0, and NaN is not above it
    return m.where(variance > 0.0, m.sqrt(m.where(variance > 0.0, variance, 1.0)), variance)


def share(x: Any, out: Any, near: Any, d: Any, _s: Any, n: Any, correction: Any) -> Any:
    scale = m.where(out > 0.0, out, 1.0) * m.maximum(n - correction, 0.0)
    return m.where(out > 0.0, (x - near - d / n) / scale, 0.0)
