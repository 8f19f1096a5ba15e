"""median: the middle of the sorted x; of an even number, the mean of the two in the middle (torch takes the lower).

NaN anywhere in a region gives NaN.
"""

from typing import Any

source = "Tukey: Nonlinear (nonsuperposable) methods for smoothing data, 1974"


def rank(n: Any) -> Any:
    return 0.5 * (n - 1)
