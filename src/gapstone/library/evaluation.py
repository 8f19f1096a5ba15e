"""`Evaluation`: what `gs.evaluate` found, as an object."""

import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapstone.comparing.report import number_text
from gapstone.console.formatting import display
from gapstone.evaluating.gather_evaluation import SCHEMA
from gapstone.library.head_of_results import Verdict
from gapstone.library.measured_numbers import MeasuredByMetrics, MeasuredNumber
from gapstone.library.prediction_frame import evaluated_frame
from gapstone.library.results_object import ResultsObject
from gapstone.library.tables import Entries
from gapstone.storage.sealed_json import DamagedError, read_sealed

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class ModelResult(MeasuredByMetrics[MeasuredNumber]):
    """What was measured of one model on the tested images.

    Examples:
        >>> old = gs.Evaluation.open("runs/old-new")["old.safetensors"]
        >>> old.accuracy, old.metrics["macro_f1"].interval

    """

    number = MeasuredNumber

    @property
    def accuracy(self) -> MeasuredNumber:
        """Of several labels, the share of images that are right in all of them."""
        return self.metrics["accuracy"]

    @property
    def moved_accuracy(self) -> MeasuredNumber:
        """On images that are moved by a few pixels; not measured with `quick`."""
        return MeasuredNumber.of(self.facts["shifted"], "accuracy of moved images", 100, 1)

    @property
    def calibration_error(self) -> float:
        """By how much confidence and accuracy differ (ECE)."""
        return float(self.facts["calibration"]["ece"])

    @property
    def parameters(self) -> int:
        """Of the whole network."""
        return int(self.facts["parameters"])

    @property
    def ms_per_image(self) -> float | None:
        """Milliseconds for an image, in batches of 16; not measured with `quick`."""
        speed = self.facts["ms_per_image"]
        return None if speed is None else float(speed["median"])

    def row(self) -> dict[str, Any]:
        """Its cells in a table of models."""
        row: dict[str, Any] = {"model": self.name}
        for name, measured in self.metrics.items():
            row |= measured.cells(name)
        row |= {"moved_accuracy": self.moved_accuracy.mean, "calibration_error": self.calibration_error}
        return row | {"parameters": self.parameters, "ms_per_image": self.ms_per_image}

    def __repr__(self) -> str:
        return f"{display(self.name)}: {self.score.words} {self.score!r}"


@dataclass(frozen=True, repr=False)
class ModelDifference:
    """How a model differs from the first one in the metric that decides.

    Examples:
        >>> gs.Evaluation.open("runs/old-new").pairs["new.safetensors"].verdict
        '…'

    """

    model: str
    first: str
    facts: Mapping[str, Any]
    """Its entry in evaluated.json, whose keys docs/evaluate.md describes."""
    about_metric: Mapping[str, Any]
    """The description of the metric that decides, in evaluated.json."""

    @property
    def verdict(self) -> Verdict:
        """`better`, `worse`, `equivalent` or `cannot tell`."""
        verdict: Verdict = self.facts["verdict"]
        return verdict

    @property
    def difference(self) -> float:
        """Model minus first, in `unit`."""
        return float(self.facts["difference"]) * float(self.about_metric["factor"])

    @property
    def unit(self) -> str:
        """Of the difference: `percentage points`, `nats`, or nothing."""
        return str(self.about_metric["unit"])

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the difference, with a confidence of 95 %; None with too few images or groups."""
        ends, factor = self.facts["ci95"], float(self.about_metric["factor"])
        return None if ends is None else (float(ends[0]) * factor, float(ends[1]) * factor)

    @property
    def p_value(self) -> float | None:
        """Adjusted for all models (Holm)."""
        return None if self.facts["p_holm"] is None else float(self.facts["p_holm"])

    def row(self) -> dict[str, Any]:
        """Its cells in a table of pairs."""
        low, high = self.interval or (None, None)
        return {"model": self.model, "first": self.first, "metric": self.facts["metric"],
                "difference": self.difference, "low": low, "high": high, "unit": self.unit, "p_value": self.p_value,
                "verdict": self.verdict, "won": self.facts["won"], "lost": self.facts["lost"]}  # fmt: skip

    def __repr__(self) -> str:
        return str(self.facts["sentence"])


class Evaluation(ResultsObject[ModelResult]):
    """How good models are on labelled images, as `gs.evaluate` returns it.

    Examples:
        >>> found = gs.evaluate(["old.safetensors", "new.safetensors"], "photos/", out="runs/old-new")
        >>> found.verdict
        '…'
        >>> found["new.safetensors"].metrics["macro_f1"]
        …
        >>> found.models.frame()  # with pandas
        >>> found.predictions().query("not correct")
        >>> gs.Evaluation.open("runs/old-new").report()
        PosixPath('runs/old-new/report.html')

    Args:
        out: The folder of the results, which docs/evaluate.md describes.
        results: The content of its evaluated.json.
    """

    @classmethod
    def open(cls, out: str | Path) -> "Evaluation":
        """Open the results in a folder, of `gs.evaluate`, `gapstone evaluate` or `train --report`.

        Examples:
            >>> gs.Evaluation.open("runs/old-new")

        Raises:
            ValueError: there are none, those of another version, or damaged ones.
        """
        path = Path(out) / "evaluated.json"
        try:
            results = read_sealed(path, "evaluated")
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(
                f"{display(out)} holds no finished evaluation (no evaluated.json): evaluate again."
            ) from None
        except DamagedError as error:
            raise ValueError(f"{error}: evaluate again.") from error
        if results.get("schema") != SCHEMA:
            raise ValueError(f"{display(path)} is of another version of gapstone: evaluate again.")
        return cls(Path(out), results)

    @cached_property
    def models(self) -> Entries[ModelResult]:
        """What was measured of each model, in the order in which they were given."""
        metrics = self.results["metrics"]
        return Entries({one["name"]: ModelResult(one["name"], one, metrics) for one in self.results["models"]}, "model")

    @cached_property
    def pairs(self) -> Entries[ModelDifference]:
        """How each model differs from the first one, by the model's name."""
        about, pairs = self.results["metrics"][0], self.results["pairs"]
        return Entries({pair["a"]: ModelDifference(pair["a"], pair["b"], pair, about) for pair in pairs}, "pair")

    @property
    def _entries(self) -> Entries[ModelResult]:
        return self.models

    def predictions(self, model: str | None = None, probabilities: bool = False) -> "pd.DataFrame":
        """What every model answers for every tested image.

        Examples:
            >>> gs.Evaluation.open("runs/old-new").predictions("new.safetensors")

        Args:
            model: one model; None: all of them.
            probabilities: with a column `p(CLASS)` for each class that a model knows.

        Returns:
            A pandas DataFrame of a row per image and model: `image`, `label`, `model`, `prediction`, `confidence` (not
            of several labels), `correct`. Several labels are written `cat|dog`.

        Raises:
            ImportError: pandas is not installed.
            KeyError: there is no such model.
            ValueError: the file is not there, or damaged.
        """
        name = None if model is None else self[model].name
        data = self.results["data"]
        return evaluated_frame(self.out / "predictions.npz", self.models.names(), data["classes"], name, probabilities)

    def report(self, show: bool = False) -> Path:
        """The report: one HTML file.

        Examples:
            >>> gs.Evaluation.open("runs/old-new").report(show=True)

        Args:
            show: open it in the browser.

        Returns:
            Its path.

        Raises:
            ValueError: it is not there any more.
        """
        path = self.out / "report.html"
        if not path.exists():
            raise ValueError(f"{display(path)} is not there any more: evaluate again, which writes it anew.")
        if show:
            webbrowser.open(path.resolve().as_uri())
        return path

    def _cells(self, one: ModelResult) -> tuple[str, ...]:
        pair = next((pair for pair in self.pairs if pair.model == one.name), None)
        return display(one.name), one.score.short(), number_text.short(one.parameters), pair.verdict if pair else ""

    def _titles(self) -> tuple[str, ...]:
        against = f"against {display(self.models[0].name)}" if len(self) > 1 else ""
        return "", str(self.results["metrics"][0]["words"]), "parameters", against

    def __repr__(self) -> str:
        return self._shown([self._titles(), *map(self._cells, self)])

    def _repr_html_(self) -> str:
        from gapstone.library.notebook_view import evaluation_view

        return evaluation_view(self.results, self._titles(), [self._cells(one) for one in self], self.report())
