"""A metric of one's own: a function of labels and probabilities, made into values of images by the jackknife.

    ψ_i = θ + (n − 1) (mean of all θ without one image − θ without image i)

Of accuracy these are 1 and 0, as they should be: their mean is the metric, whatever the function is.
"""

import hashlib
import inspect
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gapstone.console.formatting import display
from gapstone.statistics.labels import Labels, is_multi_label
from gapstone.statistics.metric_values import Probabilities, Values
from gapstone.statistics.metrics import Metric
from gapstone.statistics.unit import Unit

Function = Callable[[Labels, Probabilities], float]


def own_metric(function: Function, code: bytes | None = None) -> Metric:
    """The metric that a function of labels (n,), or with several per image (n, K) bool, and probabilities (n, K) is.

        >>> def right(labels, probabilities):
        ...     return (probabilities.argmax(1) == labels).mean()
        >>> own_metric(right).words
        'right'

    Higher is better, unless the function has an attribute `lower_is_better = True`. Differences up to its attribute
    `margin` do not matter; without one, no two heads are called equivalent.

    Args:
        function: of labels and probabilities.
        code: what it is known again by, its file; None: its source.

    Raises:
        ValueError: its margin is no number above 0.
    """
    name = str(getattr(function, "__name__", type(function).__name__))
    margin = getattr(function, "margin", None)
    if margin is not None and not (isinstance(margin, int | float) and not isinstance(margin, bool) and margin > 0):
        raise ValueError(f"{display(name)}.margin is {display(repr(margin))}; give a number above 0, or leave it out.")
    lower = bool(getattr(function, "lower_is_better", False))
    aims = () if margin is None else tuple(times * margin for times in (10, 4, 2, 1))
    unit = Unit("", 1.0, 3, margin, float("-inf"), float("inf"), lower, aims)
    digest = hashlib.sha256(_code(function) if code is None else code).hexdigest()[:16]
    return Metric(f"own:{name}", name, name, False, _Jackknife(name, function), unit, True, digest)


class _Jackknife:
    """The values of a function of one's own."""

    def __init__(self, name: str, function: Function) -> None:
        self.name, self.function = name, function

    def __call__(self, labels: Labels, probabilities: Probabilities) -> Values:
        whole, n = self.call(labels, probabilities), len(labels)
        if n < 2:
            return np.full(n, whole)
        keep, without = np.ones(n, bool), np.empty(n)
        for i in range(n):
            keep[i] = False
            without[i] = self.call(labels[keep], probabilities[keep], f", without image {i + 1} of {n:,},")
            keep[i] = True
        return np.asarray(whole + (n - 1) * (without.mean() - without), np.float64)

    def call(self, labels: Labels, probabilities: Probabilities, where: str = "") -> float:
        """The number that the function returns. Raises ValueError, a sentence, for all that may go wrong in it."""
        try:
            number: Any = self.function(labels.copy(), probabilities.copy())
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise ValueError(
                f"--metric: {display(self.name)} failed{where} with {type(error).__name__}: {display(str(error))} "
                f"({display(Path(at.filename).name)}, line {at.lineno}). It is given labels {_shape(labels)} and "
                f"probabilities (n, K), and must return a number."
            ) from error
        try:
            value = float(number)
        except (TypeError, ValueError):
            value = float("nan")
        if not np.isfinite(value):
            raise ValueError(
                f"--metric: {display(self.name)}{where} returned {display(repr(number))[:80]}; it must return a finite "
                f"number, also without any one of the images."
            )
        return value


def _shape(labels: Labels) -> str:
    return "(n, K) of bool" if is_multi_label(labels) else "(n,)"


MOST_SECONDS = 1800.0
"""That the jackknife of all trials may take."""


def check_own(metric: Metric, labels: Labels, classes: int, trials: int) -> str | None:
    """Call it on made-up probabilities of the test images, before anything is trained.

    Returns a sentence on the time that the jackknife of all trials takes, if that is worth saying.

    Raises:
        ValueError: it fails, or would take too long.
    """
    assert isinstance(metric.values, _Jackknife)
    rng = np.random.default_rng(0)
    multi_label = is_multi_label(labels)
    probabilities = rng.random((len(labels), classes)) if multi_label else rng.dirichlet(np.ones(classes), len(labels))
    metric.values.call(labels, probabilities, " on made-up probabilities")
    began = time.perf_counter()
    metric.values.call(labels, probabilities, " on made-up probabilities")
    once = time.perf_counter() - began
    seconds = once * len(labels) * trials
    what = f"{display(metric.words)} is computed without each of {len(labels):,} test images in {trials:,} trials"
    if seconds > MOST_SECONDS:
        raise ValueError(
            f"--metric: {what}, which would take {seconds / 60:,.0f} min at {1000 * once:.1f} ms each; more than "
            f"{MOST_SECONDS / 60:.0f} min is refused. Make it faster, or take fewer seeds or a metric of gapstone's."
        )
    return f"{what}: about {seconds / 60:,.0f} min." if seconds > 60 else None


def _code(function: Function) -> bytes:
    """What the function does, as far as it can be told: its source, else its instructions."""
    try:
        return inspect.getsource(function).encode()
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return repr((getattr(code, "co_code", b""), getattr(code, "co_consts", ()), repr(type(function)))).encode()
