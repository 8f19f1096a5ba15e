"""The charts of a comparison's report by their names, for the page and as figures."""

from collections.abc import Callable, Sequence
from typing import Any

from gapstone.comparing.report import charts, number_text
from gapstone.comparing.report.charts import PAGE, Chart, ChartStyle, Palette

Heads = Sequence[dict[str, Any]]


def heads_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The heads of results.json, with what the page shows beside them."""
    by_head, localised = ({pair["a"]: pair for pair in results.get(key, ())} for key in ("pairs", "localisation_pairs"))
    return [
        {
            "localisation": None,
            **head,
            "look": ChartStyle(i),
            "key": ChartStyle(i).key(),
            "deciding": number_text.deciding(head, results["settings"]),
            "beside_training": number_text.beside_training(head, results["data"]),
            "when_moved": head.get("shift_balanced_accuracy") or head.get("shift_accuracy"),
            "is_baseline": head["head"] == results["settings"]["baseline"],
            "pair": by_head.get(head["head"]),
            "localisation_pair": localised.get(head["head"]),
        }
        for i, head in enumerate(results["heads"])
    ]


def draw(results: dict[str, Any], heads: Heads, name: str, palette: Palette = PAGE) -> Chart | None:
    """The chart of that name in `CHARTS`; None where nothing of it was measured."""
    return CHARTS[name](results, heads, palette)


def reliability(results: dict[str, Any], number: int, palette: Palette = PAGE) -> Chart:
    """How often a head is right, of the predictions of which it is as sure."""
    axes = ("probability", "share with the class") if _several(results) else ("confidence", "accuracy")
    return charts.reliability(results["heads"][number]["reliability"], number, *axes, palette=palette)


def _several(results: dict[str, Any]) -> bool:
    return bool(results["data"].get("multi_label", False))


def _cost(results: dict[str, Any], heads: Heads, palette: Palette) -> Chart | None:
    return charts.cost(heads, results["metrics"][0], palette)


def _validation(results: dict[str, Any], heads: Heads, palette: Palette) -> Chart | None:
    what = "loss" if _several(results) else "accuracy"
    return charts.curves(heads, f"validation_{what}", f"validation {what}", palette)


def _loss(results: dict[str, Any], heads: Heads, palette: Palette) -> Chart | None:
    return charts.curves(heads, "train_loss", "training loss", palette)


def _shift(results: dict[str, Any], heads: Heads, palette: Palette) -> Chart | None:
    score, words = _score(results)
    return charts.robustness(heads, "shift", "pixels", score, ("moved by, in pixels", words), palette)


def _same(results: dict[str, Any], heads: Heads, palette: Palette) -> Chart | None:
    words = "answered classes that stay" if _several(results) else "same prediction as before"
    return charts.robustness(heads, "shift", "pixels", "same_prediction", ("moved by, in pixels", words), palette)


def _sizes(results: dict[str, Any], heads: Heads, palette: Palette) -> Chart | None:
    score, words = _score(results)
    return charts.robustness(heads, "sizes", "scale", score, ("size of the input", words), palette)


def _score(results: dict[str, Any]) -> tuple[str, str]:
    """Of moved and resized images, in the results and in words."""
    score = "balanced_accuracy" if _several(results) else "accuracy"
    return score, f"test {score.replace('_', ' ')}"


def _labels(results: dict[str, Any], heads: Heads, palette: Palette) -> Chart | None:
    if (curve := results.get("curve")) is None:  # results of earlier versions have none
        return None
    return charts.labels(curve["heads"], curve, results["metrics"][0], palette)


CHARTS: dict[str, Callable[[dict[str, Any], Heads, Palette], Chart | None]] = {
    "cost": _cost,
    "validation": _validation,
    "loss": _loss,
    "shift": _shift,
    "same": _same,
    "sizes": _sizes,
    "curve": _labels,
}
