"""A head of a comparison's results, and its difference from the baseline, as objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gapstone.comparing.report import number_text
from gapstone.library.measured import Measured

Verdict = Literal["better", "worse", "equivalent", "cannot tell"]


@dataclass(frozen=True, repr=False)
class HeadResult:
    """What was measured of one head.

    >>> gap = result["gap"]
    >>> gap.accuracy, gap.parameters, gap.metric("auroc").interval
    """

    name: str
    facts: Mapping[str, Any]
    """Its entry in results.json, whose keys docs/results.md describes."""
    metrics: tuple[Mapping[str, Any], ...]
    """The descriptions of all metrics, the one that decides first."""

    @property
    def accuracy(self) -> Measured:
        """On the test images; of several labels, the share of images that are right in all of them."""
        return self.metric("accuracy")

    @property
    def score(self) -> Measured:
        """The metric that decides the verdicts."""
        return self.metric(str(self.metrics[0]["name"]))

    @property
    def train_accuracy(self) -> Measured:
        """On the training images."""
        return Measured.of(self.facts["train_accuracy"], "training accuracy", 100, 1)

    @property
    def parameters(self) -> int | None:
        """Of the whole network; None: no trial finished."""
        return self.facts["parameters"]  # type: ignore[no-any-return]

    @property
    def head_parameters(self) -> int | None:
        """Of the head alone."""
        return self.facts["head_parameters"]  # type: ignore[no-any-return]

    @property
    def macs(self) -> int | None:
        """Multiply-adds for one image."""
        return self.facts["macs"]  # type: ignore[no-any-return]

    @property
    def failed(self) -> tuple[str, ...]:
        """Why trials failed."""
        return tuple(f"seed {one['seed']}: {one['reason']}" for one in self.facts["failed"])

    def metric(self, name: str) -> Measured:
        """A metric on the test images by its name.

        >>> result["gap"].metric("balanced_accuracy")

        Raises:
            KeyError: there is no metric of that name; names those that there are.
        """
        about = next((one for one in self.metrics if one["name"] == name), None)
        if about is None:
            raise KeyError(f"there is no metric {name!r}; there are {', '.join(str(one['name']) for one in self.metrics)}")
        return Measured.of(self.facts["metrics"][name], str(about["words"]), about["factor"], about["digits"])

    def __repr__(self) -> str:
        size = number_text.short(self.parameters)
        return f"{self.name}: {self.score.words} {self.score!r}; {size} parameters"


@dataclass(frozen=True, repr=False)
class Pair:
    """How a head differs from the baseline in the metric that decides.

    >>> result.pairs["gmp"].verdict, result.pairs["gmp"].difference
    ('worse', -3.2)
    """

    head: str
    baseline: str
    facts: Mapping[str, Any]
    """Its entry in results.json, whose keys docs/results.md describes."""

    @property
    def verdict(self) -> Verdict:
        return self.facts["verdict"]  # type: ignore[no-any-return]

    @property
    def difference(self) -> float | None:
        """Head minus baseline, in `unit`; None: not defined."""
        return self.facts["difference"]  # type: ignore[no-any-return]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the difference, with a confidence of 95 %; None with fewer than three trials of each."""
        return None if self.facts["ci95"] is None else tuple(self.facts["ci95"])

    @property
    def p_value(self) -> float | None:
        """Adjusted for all heads (Holm)."""
        return self.facts["p_holm"]  # type: ignore[no-any-return]

    @property
    def unit(self) -> str:
        """Of the difference: "percentage points"."""
        return str(self.facts["unit"])

    @property
    def advice(self) -> str | None:
        """What would decide; None: it is decided."""
        return self.facts["advice"]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{self.head} against {self.baseline}: {self.verdict}, {number_text.compared(dict(self.facts))}"
