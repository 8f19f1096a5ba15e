"""Localisation scores of a trained model against object boxes, for the map of each image's *true* class.

map of the true class as pictures show it → upsampled to the original image → scored by gapstone.localisation.scores

With several labels per image each of its classes that has boxes is scored by itself, on its own map (decision 41).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gapstone.comparing.boxed_images import BoxedImages, among, number_of_images
from gapstone.comparing.predictor import Predictor
from gapstone.drawing.upsample import upsample
from gapstone.localisation.box_baselines import centre_box
from gapstone.localisation.cam_boxes import PAPER, box
from gapstone.localisation.iou import boxes_of, ious
from gapstone.localisation.pointing import inside
from gapstone.localisation.scores import MIDDLE, Localisation
from gapstone.maps.explanation import MEAN_OF_CLASSES, Explanation
from gapstone.statistics.labels import is_multi_label
from gapstone.training.loop import Rows

ENOUGH = 10
"""With at least so many boxed validation images, a threshold is chosen on them."""
CENTRE = 0.7
"""Sides of the centre box, a baseline that maps should beat, as a share of the image's sides."""
KNOWN = {0.5: "gt_known", 0.3: "gt_known_30", 0.7: "gt_known_70"}
"""GT-known scores by IoU, at 20 % of the maximum."""
POINTED = {0.0: "pointing", 15.0: "pointing_15"}
"""Pointing game scores by tolerance in px."""
SCORES = (*KNOWN.values(), "top1", "top5", "max_box_acc", "max_box_acc_v2", "tuned", *POINTED.values(), "energy")
SECONDS_PER_PIXEL = 1.2e-7
"""Of one core, roughly, to upsample a map and score it at a hundred thresholds. 0.06 s at 800×600."""


def localisation(
    predictor: Predictor, objects: Sequence[BoxedImages], test: Rows, validation: Rows
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Score the model's maps on the test images that have boxes.

    A picture is an image and one of its classes that has boxes. Images with a longer side above 1024 px are scored on a
    grid of 1024, and their boxes are scaled; the 15 px of the pointing game are pixels of that grid.

    Scores are shares, 0…1: `gt_known` at 20 % of the maximum and IoU 0.5, `gt_known_30`, `gt_known_70` at those IoUs;
    `top1`, `top5` (as `gt_known`, and the class is among the first predictions; with several labels per image `top1`
    asks that it is answered, and there is no `top5`); `tuned` (GT-known at the best threshold of the validation images,
    if at least 10 of them have boxes); `max_box_acc`, `max_box_acc_v2` (thresholds
    chosen on the test images themselves: optimistic); `pointing`, and `pointing_15` with a tolerance of 15 px;
    `energy`. `without_evidence` counts images whose map is nowhere positive.

    Returns:
        The scores, None if no test image has boxes or the head has no maps of its own; and for each picture `found`:
        whether a box was found (at 20 % of the maximum, with an IoU of 0.5), on which the heads are compared, and
        `pointed`: whether the highest point lies in a box.
    """
    tested, multi_label = among(objects, test), is_multi_label(predictor.labels)
    total, hits = _empty(), []
    for image, values, rank in _maps(predictor, tested):
        boxes = image.scaled()[2]
        total.add(values, boxes, rank=rank)
        best = box(values, PAPER)
        hits.append(bool(best) and bool(ious(np.array([best[0].edges]), boxes_of(boxes)).max() >= MIDDLE))
    if not hits:
        return None, {}
    scores = total.result()
    facts = {
        "pictures": scores.pictures,
        "reference": None if multi_label else MEAN_OF_CLASSES,
        "without_evidence": scores.without_evidence,
        **{key: scores.paper.known[v] for v, key in KNOWN.items()},
        "top1": scores.paper.top1,
        "top5": None if multi_label else scores.paper.top5,
        "max_box_acc": scores.max_box_acc.accuracy,
        "max_box_acc_threshold": scores.max_box_acc.threshold,
        "max_box_acc_v2": scores.max_box_acc_v2,
        "tuned": None,
        "tuned_threshold": None,
        **{key: scores.pointing[t] for t, key in POINTED.items()},
        "energy": scores.energy,
    }
    validated = among(objects, validation)
    if number_of_images(validated) >= ENOUGH:
        validation_total = _empty()
        for image, values, rank in _maps(predictor, validated):
            validation_total.add(values, image.scaled()[2], rank=rank)
        threshold = validation_total.result().max_box_acc.threshold
        facts |= {"tuned": total.fixed(threshold).known[MIDDLE], "tuned_threshold": threshold}
    return facts, {"found": np.array(hits), "pointed": np.array(total.pointing_hits[0.0], bool)}


def _empty() -> Localisation:
    return Localisation(overlaps=tuple(KNOWN), tolerances=tuple(POINTED))


def _maps(
    predictor: Predictor, objects: Sequence[BoxedImages]
) -> Iterator[tuple[BoxedImages, NDArray[np.float32], int]]:
    """Yield each of `objects`, the map of its class on its grid, and the rank of that class: 1 if it is answered."""
    of_image: dict[int, list[BoxedImages]] = {}
    for one in objects:
        of_image.setdefault(one.row, []).append(one)
    rows = np.array(list(of_image), np.int64)
    for start in range(0, len(rows), predictor.batch_size):
        batch = rows[start : start + predictor.batch_size]
        boxed = [of_image[row] for row in batch.tolist()]
        explained = predictor.explain(batch, _classes(boxed))
        if explained is None:
            return
        explained = explained.shown()
        maps, ranks = explained.maps.float().cpu().numpy(), _ranks(explained)
        for i, image in enumerate(boxed):
            for place, one in enumerate(image):
                factor, grid, _ = one.scaled()
                scale, origin = predictor.preprocessing.seen(*one.size)
                on_grid = explained.placement.within(
                    (origin[0] * factor, origin[1] * factor), (scale[0] * factor, scale[1] * factor)
                )
                yield one, upsample(maps[i, place], on_grid, grid), int(ranks[i, one.label])


def _classes(boxed: Sequence[Sequence[BoxedImages]]) -> torch.Tensor:
    """(N, k): the classes of each image that have boxes; the last one again where others have more."""
    most = max(map(len, boxed))
    return torch.tensor([[image[min(place, len(image) - 1)].label for place in range(most)] for image in boxed])


def _ranks(explained: Explanation) -> NDArray[np.int64]:
    """(N, K): the rank of each class, from 1; with several labels 1 for those answered, and 2 for all others."""
    logits = explained.logits
    if explained.multi_label:
        ranks = 2 - (logits >= 0).long()
    else:
        ranks = logits.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
    return np.asarray(ranks.cpu().numpy(), np.int64)


def baselines(objects: Sequence[BoxedImages]) -> list[dict[str, Any]]:
    """Scores of boxes that ignore the image: the whole image, and the centre box of 70 % of its sides.

    `energy` is that of evidence spread evenly over the box. `pointing` is that of a random pixel for the whole image,
    and that of the centre pixel for the centre box.
    """
    boxes, sizes = [image.boxes for image in objects], [image.size for image in objects]
    entries = []
    for name, fraction in (("whole image", 1.0), (f"centre box, {100 * CENTRE:g} %", CENTRE)):
        known = {key: centre_box(boxes, sizes, fraction, v) for v, key in KNOWN.items()}
        share = [_share(image, fraction) for image in objects]
        pointed = share if fraction == 1 else [_share(image, 0) for image in objects]
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


def _share(image: BoxedImages, fraction: float) -> float:
    """The share of the centre box (at least one pixel) that lies in the object boxes."""
    _, (height, width), boxes = image.scaled()
    region = inside((height, width), boxes)
    top, left = (int(side * (1 - fraction) / 2) for side in (height, width))
    return float(region[top : max(height - top, top + 1), left : max(width - left, left + 1)].mean())
