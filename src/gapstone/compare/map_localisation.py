"""Where a trained model looks, measured against boxes: every score counts the map of an image's *true* class.

the map of the true class → placed in the original picture → scored by gapstone.localisation.scores
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gapstone.compare.boxed_images import BoxedImages, among
from gapstone.compare.predictor import Predictor
from gapstone.drawing.upsample import upsample
from gapstone.localisation.box_baselines import centre_box
from gapstone.localisation.cam_boxes import PAPER, box
from gapstone.localisation.iou import boxes_of, ious
from gapstone.localisation.pointing import inside
from gapstone.localisation.scores import MIDDLE, Localisation
from gapstone.maps.explain import explain_head
from gapstone.training.loop import Rows

ENOUGH = 10
"""Validation images with boxes from which on a threshold is chosen on them."""
CENTRE = 0.7
"""Of the picture's sides: the box in the middle that a map should beat."""
KNOWN = {0.5: "gt_known", 0.3: "gt_known_30", 0.7: "gt_known_70"}
"""By IoU, at 20 % of the maximum."""
POINTED = {0.0: "pointing", 15.0: "pointing_15"}
"""By tolerance in px."""
SCORES = (*KNOWN.values(), "top1", "top5", "max_box_acc", "max_box_acc_v2", "tuned", *POINTED.values(), "energy")
SECONDS_PER_PIXEL = 1.2e-7
"""Of one core, about: a map placed in its picture and swept at a hundred thresholds. 0.06 s at 800×600."""


def localisation(
    asked: Predictor, objects: Sequence[BoxedImages], test: Rows, validation: Rows
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """What the model's maps score on the test images that have boxes; None where none has. Also, per such image, was
    its box found (at 20 % of the maximum, with an IoU of 0.5): what the heads are compared on.

    Pictures whose longer side is above 1024 px are scored on a grid of 1024, boxes scaled alike: the pointing game's
    15 px are pixels of that grid.

    Shares are 0…1: `gt_known` at 20 % of the maximum and IoU 0.5, `gt_known_30`, `gt_known_70` at those IoUs; `top1`,
    `top5` (the same at 0.5, and the class among the first answers); `tuned` (GT-known at the threshold that was best on
    the validation images, where at least 10 of them have boxes); `max_box_acc`, `max_box_acc_v2` (thresholds chosen on
    the test images themselves: optimistic); `pointing`, and `pointing_15` px near; `energy`. `without_evidence` counts
    pictures whose map is nowhere positive.
    """
    tested = among(objects, test)
    if not tested:
        return None, {}
    total, found = _empty(), []
    for one, values, rank in _maps(asked, tested):
        boxes = one.scaled()[2]
        total.add(values, boxes, rank=rank)
        best = box(values, PAPER)
        found.append(bool(best) and bool(ious(np.array([best[0].edges]), boxes_of(boxes)).max() >= MIDDLE))
    scores = total.result()
    facts = {
        "pictures": scores.pictures,
        "without_evidence": scores.without_evidence,
        **{key: scores.paper.known[v] for v, key in KNOWN.items()},
        "top1": scores.paper.top1,
        "top5": scores.paper.top5,
        "max_box_acc": scores.max_box_acc.accuracy,
        "max_box_acc_threshold": scores.max_box_acc.threshold,
        "max_box_acc_v2": scores.max_box_acc_v2,
        "tuned": None,
        "tuned_threshold": None,
        **{key: scores.pointing[t] for t, key in POINTED.items()},
        "energy": scores.energy,
    }
    kept = among(objects, validation)
    if len(kept) >= ENOUGH:
        chosen = _empty()
        for one, values, rank in _maps(asked, kept):
            chosen.add(values, one.scaled()[2], rank=rank)
        threshold = chosen.result().max_box_acc.threshold
        facts |= {"tuned": total.fixed(threshold).known[MIDDLE], "tuned_threshold": threshold}
    return facts, {"found": np.array(found)}


def _empty() -> Localisation:
    return Localisation(overlaps=tuple(KNOWN), tolerances=tuple(POINTED))


def _maps(asked: Predictor, objects: Sequence[BoxedImages]) -> Iterator[tuple[BoxedImages, NDArray[np.float32], int]]:
    """Each image's map of its true class on its grid, and that class's place among the answers, 1 for the first."""
    for start in range(0, len(objects), asked.batch_size):
        some = objects[start : start + asked.batch_size]
        rows = np.array([one.row for one in some])
        features, placement = asked.maps(rows)
        truth = torch.from_numpy(np.asarray(asked.labels[rows], np.int64)).to(features.device)
        explained = explain_head(asked.head, features, truth[:, None], placement=placement)
        maps = explained.maps[:, 0].float().cpu().numpy()
        order = explained.logits.argsort(dim=1, descending=True, stable=True)
        ranks = (order == truth[:, None]).int().argmax(1) + 1
        for one, values, rank in zip(some, maps, ranks.tolist(), strict=True):
            factor, grid, _ = one.scaled()
            scale, origin = asked.preprocessing.seen(*one.size)
            there = placement.within((origin[0] * factor, origin[1] * factor), (scale * factor, scale * factor))
            yield one, upsample(values, there, grid), rank


def baselines(objects: Sequence[BoxedImages]) -> list[dict[str, Any]]:
    """What boxes score on these images that look at nothing: the whole picture, and the middle 70 % of its sides.

    `energy` is that of evidence spread evenly over the box. The whole picture points nowhere in particular: its
    `pointing` is a random pixel's; that of the middle is the picture's centre.
    """
    boxes, sizes = [one.boxes for one in objects], [one.size for one in objects]
    entries = []
    for name, fraction in (("whole image", 1.0), (f"centre box, {100 * CENTRE:g} %", CENTRE)):
        known = {key: centre_box(boxes, sizes, fraction, v) for v, key in KNOWN.items()}
        share = [_share(one, fraction) for one in objects]
        pointed = share if fraction == 1 else [_share(one, 0) for one in objects]
        entries.append(
            {
                "name": name,
                **known,
                "max_box_acc_v2": float(np.mean(list(known.values()))),
                "pointing": float(np.mean(pointed)),
                "energy": float(np.mean(share)),
            }
        )
    return entries


def _share(one: BoxedImages, fraction: float) -> float:
    """How much of the box in the middle, at least its one pixel, lies in the objects' boxes."""
    _, (height, width), boxes = one.scaled()
    region = inside((height, width), boxes)
    top, left = (int(side * (1 - fraction) / 2) for side in (height, width))
    return float(region[top : max(height - top, top + 1), left : max(width - left, left + 1)].mean())
