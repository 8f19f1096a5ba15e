"""A head of a comparison's results, its difference from the baseline, and its trials, as objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gapstone.comparing.report import number_text
from gapstone.library.measured_numbers import Facts, MeanOfTrials, MeasuredByMetrics

Verdict = Literal["better", "worse", "equivalent", "cannot tell"]


@dataclass(frozen=True, repr=False)
class HeadResult(MeasuredByMetrics[MeanOfTrials]):
    """What was measured of one head.

    Examples:
        >>> gap = result["gap"]
        >>> gap.accuracy, gap.parameters
        >>> gap.metrics["auroc"].interval
    """

    number = MeanOfTrials

    @property
    def accuracy(self) -> MeanOfTrials:
        """On the test images; of several labels, the share of images that are right in all of them."""
        return self._share("test_accuracy", "accuracy")

    @property
    def train_accuracy(self) -> MeanOfTrials:
        """On the training images."""
        return self._share("train_accuracy", "training accuracy")

    @property
    def shift_accuracy(self) -> MeanOfTrials:
        """On test images that are moved by 1 pixel and more; not measured with `quick`."""
        return self._share("shift_accuracy", "accuracy of moved images")

    @property
    def calibration_error(self) -> MeanOfTrials:
        """By how much confidence and accuracy differ (ECE)."""
        return self._share("ece", "calibration error")

    @property
    def train_seconds(self) -> MeanOfTrials:
        """Of one trial."""
        return MeanOfTrials.of(self.facts["train_seconds"], "seconds of training", 1, 1)

    @property
    def parameters(self) -> int | None:
        """Of the whole network; None: no trial finished."""
        return self._count("parameters")

    @property
    def head_parameters(self) -> int | None:
        """Of the head alone."""
        return self._count("head_parameters")

    @property
    def macs(self) -> int | None:
        """Multiply-adds for one image."""
        return self._count("macs")

    @property
    def ms_per_image(self) -> float | None:
        """Milliseconds of the whole network for an image, in batches; None: not measured."""
        speed = self.facts["ms_per_image"]
        return None if speed is None else float(speed["median"])

    @property
    def failed(self) -> tuple[str, ...]:
        """Why trials failed."""
        return tuple(f"seed {one['seed']}: {one['reason']}" for one in self.facts["failed"])

    def row(self) -> dict[str, Any]:
        """Its cells in a table of heads."""
        row: dict[str, Any] = {"head": self.name}
        for name, measured in self.metrics.items():
            row |= measured.cells(name)
        row |= {"train_accuracy": self.train_accuracy.mean, "shift_accuracy": self.shift_accuracy.mean}
        row |= {"parameters": self.parameters, "head_parameters": self.head_parameters, "macs": self.macs}
        return row | {"ms_per_image": self.ms_per_image, "train_seconds": self.train_seconds.mean}

    def _share(self, key: str, words: str) -> MeanOfTrials:
        return MeanOfTrials.of(self.facts.get(key), words, 100, 1)

    def _count(self, key: str) -> int | None:
        return None if self.facts[key] is None else int(self.facts[key])

    def __repr__(self) -> str:
        size = number_text.short(self.parameters)
        return f"{self.name}: {self.score.words} {self.score!r}; {size} parameters"


@dataclass(frozen=True, repr=False)
class Pair:
    """How a head differs from the baseline in the metric that decides.

    Examples:
        >>> pair = result.pairs["gmp"]
        >>> pair.verdict, pair.difference, pair.interval  # ('worse', -3.2, (-4.9, -1.5))
        ('cannot tell', …)

    """

    head: str
    baseline: str
    metric: str
    """The name of the metric that decides."""
    facts: Facts
    """Its entry in results.json, whose keys docs/results.md describes."""

    @property
    def verdict(self) -> Verdict:
        """`better`, `worse`, `equivalent` or `cannot tell`."""
        verdict: Verdict = self.facts["verdict"]
        return verdict

    @property
    def difference(self) -> float | None:
        """Head minus baseline, in `unit`; None: not defined."""
        return None if self.facts["difference"] is None else float(self.facts["difference"])

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the difference, with a confidence of 95 %; None with fewer than three trials of each."""
        ends = self.facts["ci95"]
        return None if ends is None else (float(ends[0]), float(ends[1]))

    @property
    def p_value(self) -> float | None:
        """Adjusted for all heads (Holm)."""
        return None if self.facts["p_holm"] is None else float(self.facts["p_holm"])

    @property
    def unit(self) -> str:
        """Of the difference: `percentage points`, `nats`, or nothing."""
        return str(self.facts["unit"])

    @property
    def advice(self) -> str | None:
        """What would decide; None: it is decided."""
        return None if self.facts["advice"] is None else str(self.facts["advice"])

    def row(self) -> dict[str, Any]:
        """Its cells in a table of pairs."""
        low, high = self.interval or (None, None)
        return {"head": self.head, "baseline": self.baseline, "metric": self.metric, "difference": self.difference,
                "low": low, "high": high, "unit": self.unit, "p_value": self.p_value, "verdict": self.verdict,
                "detectable": self.facts["detectable"], "repeats": self.facts["repeats"]}  # fmt: skip

    def __repr__(self) -> str:
        return number_text.compared(dict(self.facts))


@dataclass(frozen=True, repr=False)
class TrialResult:
    """One training of a head.

    Examples:
        >>> [trial.metrics["accuracy"] for trial in result.trials if trial.head == "gap"]

    """

    head: str
    seed: int
    """Of a cross-validation, the number of the fold."""
    metrics: Mapping[str, float | None]
    """Each metric on the test images, by name; empty where the trial failed."""
    facts: Facts
    """Its entry in results.json, whose keys docs/results.md describes."""

    @property
    def failed(self) -> str | None:
        """Why it failed; None: it did not."""
        return None if self.facts["status"] == "done" else str(self.facts["reason"])

    def row(self) -> dict[str, Any]:
        """Its cells in a table of trials."""
        return {"trial": self.facts["id"], "head": self.head, "seed": self.seed, "fold": self.facts["fold"],
                "failed": self.failed, **self.metrics, "train_accuracy": self.facts["train_accuracy"],
                "epochs": self.facts["epochs"], "best_epoch": self.facts["best_epoch"],
                "learning_rate": self.facts["learning_rate"], "weight_decay": self.facts["weight_decay"],
                "seconds": self.facts["seconds"]}  # fmt: skip

    def __repr__(self) -> str:
        if self.failed is not None:
            return f"{self.head}, seed {self.seed}: failed ({self.failed})"
        name, score = next(iter(self.metrics.items()))
        return f"{self.head}, seed {self.seed}: {name} {number_text.plain(score, 4)}"
