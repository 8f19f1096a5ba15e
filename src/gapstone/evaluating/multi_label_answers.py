"""What is said of answers where images have several labels: of each class, of the worst images, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.class_results import BY_CLASS, hits_and_errors
from gapstone.comparing.remarks import few_positives
from gapstone.console.formatting import count_noun
from gapstone.data.sources import Source, few
from gapstone.drawing.confusion_picture import FEW
from gapstone.evaluating.measured import ALONE, Answered, Together, Values, added_of, stat, strata_of
from gapstone.statistics.metrics import MULTI_LABEL, most_answers
from gapstone.statistics.multi_label_metrics import counted
from gapstone.training.learning_checks import learned

MOST_CLASSES = 1000
"""With more, of none recall and average precision have intervals."""


def class_entries(answered: Answered, names: Sequence[str], together: Together = ALONE) -> list[dict[str, Any]]:
    """The "classes" entry of a model in evaluated.json, an entry for each class of DATA.

    Recall and average precision have intervals for other images, not of classes that fewer than FEW images have, or
    lack.
    """
    labels, said = np.asarray(answered.labels, bool), np.asarray(answered.answer, bool)
    columns = {key: _columns(answered, name) for key, name in BY_CLASS.items()}
    counts, entries = hits_and_errors(labels, said), []
    for k, name in enumerate(names):
        there, told = labels[:, k], said[:, k]
        known = len(names) <= MOST_CLASSES and FEW <= there.sum() <= len(there) - FEW
        recalled = stat(told[there].astype(np.float64), together=together.of(there)) if known else _plain(told[there])
        entry: dict[str, Any] = {
            "class": name,
            "images": int(there.sum()),
            **dict(zip(("found", "missed", "false"), counts[:, k].tolist(), strict=True)),
            "recall": recalled,
            "precision": _plain(there[told]),
            **{key: _plain(values[:, k]) for key, values in columns.items()},
        }
        if known:
            alone = _of_class(answered, k)
            metric = MULTI_LABEL["average_precision"]
            added = added_of([alone], metric)
            most = most_answers(metric, alone.labels, added)
            entry["average_precision"] = stat(
                columns["average_precision"][:, k], metric.unit, added, together, most, strata_of(metric, alone.labels)
            )
        entries.append(entry)
    return entries


def _columns(answered: Answered, name: str) -> Values:
    of_classes = MULTI_LABEL[name].of_classes
    assert of_classes is not None
    return of_classes(answered.labels, answered.probabilities)


def _of_class(answered: Answered, k: int) -> Answered:
    one = slice(k, k + 1)
    return Answered(answered.name, answered.labels[:, one], answered.logits[:, one], np.array([0]))


def _plain(values: NDArray[Any]) -> dict[str, Any]:
    """A Stat without an interval; of no values, or where the class does not count, None."""
    mean = float(np.mean(values)) if len(values) else np.nan
    return {"mean": mean if np.isfinite(mean) else None, "ci95": None, "values": [mean] if np.isfinite(mean) else []}


def worst_entry(names: Sequence[str], row: int, answered: Answered, loss: float) -> dict[str, Any]:
    """What a model answered of an image."""
    there, said = np.asarray(answered.labels[row], bool), np.asarray(answered.answer[row], bool)

    def of(classes: NDArray[np.bool_]) -> list[str]:
        return [names[k] for k in np.flatnonzero(classes).tolist()]

    return {
        "model": answered.name,
        "predictions": of(said),
        "missed": of(there & ~said),
        "false": of(said & ~there),
        "nll": loss,
        "right": bool((there == said).all()),
    }


def shown_classes(answered: Answered, row: int, most: int) -> list[tuple[int, str]]:
    """The classes whose maps are shown of a wrong answer, and why: missed ones, false ones, the surest first."""
    z, there = answered.logits[row], np.asarray(answered.labels[row], bool)
    said = np.asarray(answered.answer[row], bool)
    missed = sorted(np.flatnonzero(there & ~said).tolist(), key=lambda k: z[k])
    false = sorted(np.flatnonzero(said & ~there).tolist(), key=lambda k: -z[k])
    found = sorted(np.flatnonzero(there & said).tolist(), key=lambda k: -z[k])
    # of both kinds of mistakes some
    mistakes = [pair for k in range(most) for pair in ([(m, "missed") for m in missed[k : k + 1]]
                + [(f, "false") for f in false[k : k + 1]])]  # fmt: skip
    return [*mistakes, *((k, "found") for k in found)][:most]


def remarks_on(entry: Mapping[str, Any], answered: Answered, names: Sequence[str], known: int) -> list[str]:
    """Sentences that qualify a model's answers; `known`: how many classes it has."""
    name, said = entry["name"], []
    labels, told = np.asarray(answered.labels, bool), np.asarray(answered.answer, bool)
    if (told == told[0]).all():
        answers = few([names[k] for k in np.flatnonzero(told[0]).tolist()]) if told[0].any() else "no class"
        said.append(f"{name} answers every image alike, with {answers}.")
    precision, share = entry["metrics"]["average_precision"]["mean"], labels[:, counted(labels)].mean()
    if precision is not None and not learned(precision, float(share)):
        said.append(
            f"{name} is {'no' if precision <= share else 'hardly'} better than guessing: {100 * precision:.1f} % mean "
            f"average precision, guessing has {100 * share:.1f} %."
        )
    if known > len(names):
        said.append(
            f"{name} knows {known:,} classes, {len(names):,} of which DATA has: what it answers of the others is not "
            f"judged, as DATA does not say which images have them."
        )
    return said


def about_images(source: Source, labels: NDArray[np.bool_]) -> list[str]:
    """Sentences on classes that too few of the tested images have, or lack, and on images without any."""
    count = labels.sum(0)
    out = [name for name, counts in zip(source.classes, counted(labels), strict=True) if not counts]
    data = {"multi_label": True, "classes": source.classes, "uncounted": out, "test": len(labels)}
    few = few_positives({"data": data | {"counts": {"test": count.tolist()}}})
    return [*few, *without_any(labels)]


def without_any(labels: NDArray[np.bool_]) -> list[str]:
    """A sentence on images without any label; none if there are none.

    >>> without_any(np.array([[True, False], [False, False]]))
    ['1 of 2 test images has no label: no class should be answered there.']
    """
    empty = int((~labels.any(1)).sum())
    if not empty:
        return []
    verb, images = "has" if empty == 1 else "have", count_noun(len(labels), "test image")
    return [f"{empty:,} of {images} {verb} no label: no class should be answered there."]
