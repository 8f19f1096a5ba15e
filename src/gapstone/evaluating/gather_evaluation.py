"""From the answers of all models to evaluated.json (schema: docs/evaluate.md)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gapstone
from gapstone.comparing.chosen_metric import asked_metric
from gapstone.comparing.gather_results import machine, versions
from gapstone.comparing.predictor import STILL
from gapstone.comparing.tested_groups import groups_said
from gapstone.comparing.tested_values import CONFIDENCE
from gapstone.data.scan import Scan, content_digest
from gapstone.data.sources import Source
from gapstone.evaluating.evaluate_request import EvaluateRequest
from gapstone.evaluating.evaluated_model import EvaluatedModel, Robustness
from gapstone.evaluating.evaluation_text import (
    ONE_TRAINING,
    calibration_remark,
    few_images,
    headline,
    model_remarks,
    pair_sentence,
)
from gapstone.evaluating.measured import NOT_MOVED, Answered, Together, Values, added_of, measures, moved, strata_of
from gapstone.evaluating.multi_label_answers import (
    about_images,
    class_entries,
    remarks_on,
    worst_entry,
)
from gapstone.evaluating.tested_images import TestedImages
from gapstone.runtime.timing import ratio, spread, take_turns
from gapstone.statistics.labels import Labels, all_right, class_counts, is_multi_label
from gapstone.statistics.metrics import MULTI_LABEL, Metric, agreement, choose_for, shown_metrics
from gapstone.statistics.one_seed import compare_models

SCHEMA = 1
MOST_WORST = 12
BATCH, LONGEST = 16, 6.0
"""Images at a time, and seconds after which no round begins, where models are timed."""


@dataclass(frozen=True, eq=False)
class AnsweredModel:
    """A model and what it said."""

    name: str
    model: EvaluatedModel
    classes: NDArray[np.int64]
    """The number of each class of DATA among those of the logits."""
    logits: NDArray[np.float32]
    robust: Robustness | None
    """None where no image was moved."""
    cropped: str | None = None
    """A sentence if it does not see whole images."""

    @cached_property
    def answered(self) -> Answered:
        return Answered(self.name, self.model.labels, self.logits, self.classes)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the logits' classes; with several labels they are those of DATA."""
        names = self.model.opened.labels
        return names if self.model.columns is None else tuple(names[k] for k in self.model.columns.tolist())


def gather(
    request: EvaluateRequest,
    source: Source,
    scan: Scan,
    tested: TestedImages,
    evaluations: Sequence[AnsweredModel],
    command: str,
    remarks: Sequence[str],
) -> dict[str, Any]:
    """The results, as in evaluated.json."""
    labels, classes = source.labels[tested.rows], len(source.classes)
    counts, multi_label = class_counts(labels, classes), source.multi_label
    metric, chosen = choose_for(asked_metric(request.metric), labels, classes)
    metrics = _metrics(metric, evaluations)
    groups = tested.counted(labels, classes, metric.by_class)
    together = Together(tested.groups, refused=groups is not None and groups["refused"] is not None)
    speeds = _speeds(request, evaluations)
    models = [_model(one, source, labels, metrics, speeds.get(one.name), together) for one in evaluations]
    if undefined := [entry["name"] for entry in models if entry["metrics"][metric.name]["mean"] is None]:
        raise ValueError(
            f"--metric {metric.words} is no finite number for {undefined[0]} on these images: take another."
        )
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "gapstone": gapstone.__version__,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "data": {
            "source": source.given,
            "kind": source.kind,
            "classes": list(source.classes),
            "part": tested.part,
            "described": tested.described,
            "images": len(tested.rows),
            "counts": counts.tolist(),
            "left_out": tested.left_out,
            "groups": groups,
            "hash": content_digest(source, scan, tested.rows),
            **({"multi_label": True} if multi_label else {}),
        },
        "settings": {
            "metric": metric.name,
            "confidence": CONFIDENCE,
            "device": str(evaluations[0].model.opened.device),
            "precision": request.precision,
            "batch_size": request.batch_size,
            "limit": request.limit,
            "duplicates": request.duplicates,
            "quick": request.quick,
        },
        "metrics": [one.to_json() for one in metrics],
        "machine": machine(str(evaluations[0].model.opened.device)),
        "versions": versions(),
        "scan": scan.to_json(),
        "models": models,
        "pairs": _pairs(evaluations, metric, together),
        "shift_pairs": _shift_pairs(evaluations, labels, metric, together),
        "worst": _worst(source, tested, evaluations),
    }
    results["verdict"], results["findings"] = headline(results, metric)
    said = [*_said_of(source, labels, models, groups, chosen), *remarks]
    results["remarks"] = said + _said_of_each(source, counts, evaluations, models)
    return results


def _said_of(
    source: Source,
    labels: NDArray[Any],
    models: Sequence[dict[str, Any]],
    groups: dict[str, Any] | None,
    chosen: str | None,
) -> list[str]:
    """What is said of the images, and of what the numbers are about."""
    one = len(models) == 1
    scope = ONE_TRAINING.format(these="this model" if one else "these models", it="it is" if one else "they are")
    of_groups = groups_said({"test": len(labels), "groups": groups}), groups and groups["refused"]
    counts = class_counts(labels, len(source.classes))
    few = about_images(source, labels) if source.multi_label else [few_images(source.classes, counts)]
    return [scope, *filter(None, [*of_groups, chosen, *few])]


def _said_of_each(
    source: Source, counts: NDArray[np.int64], evaluations: Sequence[AnsweredModel], models: Sequence[dict[str, Any]]
) -> list[str]:
    """What is said of each model."""
    about = [note for note in dict.fromkeys(one.cropped for one in evaluations) if note]
    for one_model, entry in zip(evaluations, models, strict=True):
        if source.multi_label:
            about += remarks_on(entry, one_model.answered, source.classes, len(one_model.model.opened.labels))
        else:
            about += model_remarks(entry, one_model.answered, counts)
        about += calibration_remark(entry)
    return about


def _metrics(deciding: Metric, evaluations: Sequence[AnsweredModel]) -> list[Metric]:
    """What decides, then all that suit the number of classes of every model."""
    classes = min(one.logits.shape[1] for one in evaluations)
    return shown_metrics(deciding, classes, evaluations[0].answered.multi_label)


def _model(
    one: AnsweredModel,
    source: Source,
    labels: Labels,
    metrics: Sequence[Metric],
    speed: dict[str, Any] | None,
    together: Together,
) -> dict[str, Any]:
    entry = {
        "name": one.name,
        "model": one.model.opened.name,
        **one.model.facts(),
        **measures(one.answered, metrics, together),
    }
    if source.multi_label:
        entry["by_class"] = class_entries(one.answered, source.classes, together)
    if one.robust is None:
        return {**entry, **NOT_MOVED, "ms_per_image": speed}
    facts, shifted, rows = one.robust
    return {
        **entry,
        **moved(facts, shifted, labels[rows], metrics[0]),
        "ms_per_image": speed,
    }


def _pairs(evaluations: Sequence[AnsweredModel], metric: Metric, together: Together) -> list[dict[str, Any]]:
    """Every model beside the first one."""
    if len(evaluations) < 2:
        return []
    first = evaluations[0]
    values = {one.name: one.answered.values(metric) for one in evaluations}
    added = added_of([one.answered for one in evaluations], metric)
    pairs = _compared(values, metric, added, first.name, together, strata_of(metric, first.answered.labels))
    for pair, other in zip(pairs, evaluations[1:], strict=True):
        a, b = other.answered, first.answered
        pair |= {
            "won": int((a.right & ~b.right).sum()),
            "lost": int((b.right & ~a.right).sum()),
            "same_answers": int(all_right(_of_data(other), _of_data(first)).sum()),
            "same_probabilities": _same_probabilities(other, first),
        }
        pair["sentence"] = pair_sentence(pair, metric, len(pairs))
    return pairs


def _of_data(one: AnsweredModel) -> Labels:
    """Its answers as names of its labels' texts are compared: DATA's number of the class, or −1 − its own."""
    if one.answered.multi_label:
        return one.answered.answer
    own = -1 - np.arange(one.logits.shape[1])
    own[one.classes] = np.arange(len(one.classes))
    return np.asarray(own[one.answered.answer], np.int64)


def _same_probabilities(a: AnsweredModel, b: AnsweredModel) -> bool:
    """Whether both give each class of DATA the same probability, to the last bit of the logits' sum."""
    pa, pb = (one.answered.probabilities[:, one.classes] for one in (a, b))
    return a.logits.shape == b.logits.shape and bool(np.allclose(pa, pb, rtol=0, atol=1e-7))


def _shift_pairs(
    evaluations: Sequence[AnsweredModel], labels: Labels, metric: Metric, together: Together
) -> list[dict[str, Any]]:
    """The same when images are moved, of models that have moved the same images."""
    robust = [(one, one.robust) for one in evaluations if one.robust is not None]
    if len(robust) < 2 or any(not np.array_equal(a[1][2], b[1][2]) for a, b in pairwise(robust)):
        return []
    rows, decides = robust[0][1][2], metric.moved_by(is_multi_label(labels))
    strata = strata_of(decides, labels[rows])
    values = {one.name: metric.of_moved(labels[rows], shifted) for one, (_, shifted, _) in robust}
    pairs = _compared(values, decides, agreement(decides, labels[rows]), robust[0][0].name, together.of(rows), strata)
    for pair in pairs:
        pair |= {"won": None, "lost": None, "same_answers": None, "same_probabilities": False}
        pair["sentence"] = pair_sentence(pair, decides, len(pairs))
    return pairs


def _compared(
    values: dict[str, Values],
    metric: Metric,
    added: float,
    first: str,
    together: Together,
    strata: NDArray[np.int64] | None,
) -> list[dict[str, Any]]:
    """Without intervals and verdicts where there are too few groups for them."""
    nothing = {"ci95": None, "ci95_together": None, "p": None, "p_holm": None, "verdict": "cannot tell"}
    return [
        {
            "a": pair.name,
            "b": first,
            "metric": metric.name,
            "difference": pair.difference,
            "ci95": list(pair.interval),
            "ci95_together": list(pair.together),
            "p": pair.p,
            "p_holm": pair.p_holm,
            "verdict": pair.verdict,
            **(nothing if together.refused else {}),
        }
        for pair in compare_models(values, metric.unit, added, CONFIDENCE, together.groups, strata)
    ]


def _speeds(request: EvaluateRequest, evaluations: Sequence[AnsweredModel]) -> dict[str, dict[str, Any]]:
    """Milliseconds per image of each model, measured in turns."""
    if request.quick:
        return {}

    def call(one: AnsweredModel) -> Callable[[], object]:
        rows = np.arange(BATCH) % len(one.logits)
        return lambda: one.model.logits(rows, STILL)

    timed = take_turns({one.name: call(one) for one in evaluations}, longest=LONGEST)
    first = timed.seconds[evaluations[0].name]
    return {
        name: {
            **spread([1000 * second / BATCH for second in seconds]),
            "ratio": None if seconds is first else ratio(seconds, first),
            "rounds": len(seconds),
            "others": None if timed.others is None else round(timed.others, 2),
        }
        for name, seconds in timed.seconds.items()
    }


def _worst(source: Source, tested: TestedImages, evaluations: Sequence[AnsweredModel]) -> list[dict[str, Any]]:
    """The images with the largest sum of confidences in wrong answers, with several labels of losses."""
    multi_label, total = source.multi_label, np.zeros(len(tested.rows))
    badly = [
        one.answered.values(MULTI_LABEL["nll"]) if multi_label else one.answered.probabilities.max(1)
        for one in evaluations
    ]
    for one, how in zip(evaluations, badly, strict=True):
        total += np.where(one.answered.right, 0.0, how)
    worst = [int(row) for row in np.argsort(-total, kind="stable")[:MOST_WORST] if total[row] > 0]
    return [
        {
            "name": source.items[int(tested.rows[row])].name,
            "row": row,
            **_label(source, int(tested.rows[row])),
            "answers": [
                worst_entry(source.classes, row, one.answered, float(how[row])) if multi_label else _answer(one, row)
                for one, how in zip(evaluations, badly, strict=True)
            ],
        }
        for row in worst
    ]


def _label(source: Source, item: int) -> dict[str, Any]:
    names = [source.classes[k] for k in source.items[item].labels]
    return {"labels": names} if source.multi_label else {"label": names[0]}


def _answer(one: AnsweredModel, row: int) -> dict[str, Any]:
    answered = one.answered
    return {
        "model": one.name,
        "prediction": one.labels[int(answered.answer[row])],
        "confidence": float(answered.probabilities[row].max()),
        "true_probability": float(answered.probabilities[row, answered.labels[row]]),
        "right": bool(answered.right[row]),
    }
