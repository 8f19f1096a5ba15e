"""What an evaluation says in sentences: a headline, what stands behind it, and what qualifies it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.verdict import listed
from gapstone.console.formatting import count_noun, display, signed, span
from gapstone.drawing.confusion_picture import FEW
from gapstone.evaluating.measured import Answered
from gapstone.statistics.metrics import Metric
from gapstone.training.learning_checks import learned, majority

ONE_TRAINING = (
    "Intervals are for other images of the same kind, and for {these} as {it}: other trainings of the same network, "
    "with other seeds, are not in them (gapstone compare trains several)."
)

HOT = 0.02
"""Share of the negative log-likelihood that a temperature has to win to be worth a sentence."""


def headline(results: Mapping[str, Any], metric: Metric) -> tuple[str, list[str]]:
    """The result in a sentence, and sentences on what stands behind it.

    >>> headline(results, METRICS["accuracy"])
    ('new.safetensors is better than old.safetensors: +2.1 percentage points of accuracy.', ['95 % CI +0.4 to +3.8 …'])
    """
    models, pairs = results["models"], results["pairs"]
    first = models[0]["name"]
    if not pairs:
        value, images = (
            in_words(metric, models[0]["metrics"][metric.name]),
            count_noun(results["data"]["images"], "image"),
        )
        return f"{first}: {metric.words} {value} on {images}.", []
    apart = [pair for pair in pairs if pair["verdict"] in ("better", "worse")]
    details = [pair["sentence"] for pair in pairs] + [
        f"On moved images: {pair['sentence']}" for pair in results["shift_pairs"] if pair in _apart(results)
    ]
    if len(pairs) == 1:
        return _of_two(pairs[0], metric), details
    if not apart:
        same = all(pair["verdict"] == "equivalent" for pair in pairs)
        return f"{'All are equivalent to' if same else 'None differs detectably from'} {first}.", details
    text = [
        f"{listed([pair['a'] for pair in apart if pair['verdict'] == word])} {verb} {word} than {first}"
        for word in ("better", "worse")
        if (count := sum(pair["verdict"] == word for pair in apart))
        for verb in ("is" if count == 1 else "are",)
    ]
    return f"{'; '.join(text)}.", details


def _apart(results: Mapping[str, Any]) -> list[Any]:
    return [pair for pair in results["shift_pairs"] if pair["verdict"] in ("better", "worse")]


def _of_two(pair: Mapping[str, Any], metric: Metric) -> str:
    a, b = pair["a"], pair["b"]
    if pair["same_probabilities"]:
        return f"{a} and {b} are one model: their probabilities are the same on all images."
    if pair["verdict"] == "equivalent":
        return f"{a} and {b} are equivalent in {metric.words}."
    if pair["verdict"] == "cannot tell":
        return f"{a} and {b} do not differ detectably in {metric.words}."
    return f"{a} is {pair['verdict']} than {b}: {metric.unit.change(pair['difference'])} of {metric.words}."


def pair_sentence(pair: Mapping[str, Any], metric: Metric, pairs: int) -> str:
    """A pair with its numbers.

    >>> pair_sentence(pair, METRICS["accuracy"], 1)
    'new.safetensors minus old.safetensors: +2.1 percentage points of accuracy (95 % CI +0.4 to +3.8, p = 0.016); it …'
    """
    unit = metric.unit
    bounds = pair["ci95"] if pairs == 1 else pair["ci95_together"]
    if bounds is None:
        return f"{pair['a']} minus {pair['b']}: {unit.change(pair['difference'])} of {metric.words}."
    low, high = (signed(unit.factor * end, unit.digits) for end in bounds)
    together = "" if pairs == 1 else f", for all {pairs} models together"
    p = "p < 0.001" if pair["p_holm"] < 0.001 else f"p = {pair['p_holm']:.2g}"
    text = (
        f"{pair['a']} minus {pair['b']}: {unit.change(pair['difference'])} of {metric.words} (95 % CI {low} to {high}"
        f"{together}, {'Holm-adjusted ' if pairs > 1 else ''}{p})"
    )
    if pair["won"] is not None:
        text += f"; {pair['won']:,} images are right under {pair['a']} alone, {pair['lost']:,} under {pair['b']} alone"
    return f"{text}."


def model_remarks(entry: Mapping[str, Any], answered: Answered, counts: NDArray[np.int64]) -> list[str]:
    """Sentences that qualify a model's numbers."""
    name, said = entry["name"], []
    if len(np.unique(answered.answer)) == 1:
        said.append(f"{name} gives one answer to every image.")
    accuracy, largest = entry["metrics"]["accuracy"]["mean"], majority(counts.tolist())
    if not learned(accuracy, largest):
        said.append(
            f"{name} is {'no' if accuracy <= largest else 'hardly'} better than always answering the largest class: "
            f"{100 * accuracy:.1f} %, the largest class is {100 * largest:.1f} % of the images."
        )
    other = sum(entry["other_classes"])
    if answered.logits.shape[1] > len(answered.classes):
        said.append(
            f"{name} knows {answered.logits.shape[1]:,} classes, {len(answered.classes):,} of which DATA has: answers "
            f"that are none of these count as wrong ({other:,} of {count_noun(len(answered.labels), 'image')})."
        )
    return said


def calibration_remark(entry: Mapping[str, Any]) -> list[str]:
    """A sentence on probabilities that another temperature would suit much better; none if they are right."""
    name, calibration = entry["name"], entry["calibration"]
    won = calibration["nll"] - calibration["scaled_nll"]
    if won > HOT * max(calibration["nll"], 1e-9) and won > 0.005:
        sure = "too sure" if calibration["temperature"] > 1 else "not sure enough"
        return [
            f"{name} is {sure} of its answers: with logits divided by {calibration['temperature']:.2g} its negative "
            f"log-likelihood would be {calibration['scaled_nll']:.3f} instead of {calibration['nll']:.3f} (found on "
            f"these images; set a temperature on validation images)."
        ]
    return []


def few_images(classes: Sequence[str], counts: NDArray[np.int64]) -> str | None:
    """A sentence on classes of which so few images are tested that their recall says little."""
    few = [name for name, count in zip(classes, counts.tolist(), strict=True) if 0 < count < FEW]
    none = [name for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]
    said = []
    if few:
        said.append(f"{_named(few)} {'has' if len(few) == 1 else 'have'} fewer than {FEW} test images")
    if none:
        said.append(f"{_named(none)} {'has' if len(none) == 1 else 'have'} none")
    return f"{'; '.join(said)}: what is said of single classes is uncertain." if said else None


def _named(names: Sequence[str]) -> str:
    shown = [display(name, 40) for name in names[:3]]
    return listed(shown) if len(names) <= 3 else f"{', '.join(shown)} and {len(names) - 3} more classes"


def in_words(metric: Metric, stat: Mapping[str, Any]) -> str:
    """A metric with its interval.

    >>> in_words(METRICS["accuracy"], {"mean": 0.931, "ci95": [0.902, 0.953]})
    '93.1 % (95 % CI 90.2 to 95.3)'
    """
    unit = metric.unit
    if stat["ci95"] is None:
        return unit.value(stat["mean"])
    low, high = (unit.factor * end for end in stat["ci95"])
    return f"{unit.value(stat['mean'])} (95 % CI {span(low, high, unit.digits)})"
