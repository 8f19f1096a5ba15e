"""quantile: the value at rank q (n − 1) of the sorted x, counted from 0; linear between ranks, as torch.quantile.

NaN anywhere in a region gives NaN.
"""

from typing import Any

from gapstone.pools.definition import Parameter

parameters = {"q": Parameter(least=0.0, most=1.0)}
source = "Hyndman, Fan: Sample quantiles in statistical packages (their type 7), 1996"


def rank(n: Any, q: Any) -> Any:
    return q * (n - 1)
