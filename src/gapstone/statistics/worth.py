"""What one decision of several labels per image counts for a metric, seen in the data, and in how many images it lies.

`metrics.agreement` adds images to the variance on which two heads might disagree. With one label an image is right or
wrong; here each of its classes is, and a class that few images have weighs most in those.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gapstone.statistics.labels import decisions
from gapstone.statistics.metric_values import Probabilities
from gapstone.statistics.multi_label_metrics import Columns, Indicators, counted

Counts = NDArray[np.int64]
Strata = Callable[[Indicators], Counts]


def by_either(labels: Indicators) -> Counts:
    """Images with each class, and those without: what balanced accuracy and AUROC weigh decisions by."""
    positives = labels[:, counted(labels)].sum(0)
    return np.concatenate([positives, len(labels) - positives])


def by_positives(labels: Indicators) -> Counts:
    """Images with each class, twice: for F1 and average precision a false alarm weighs as much as a missed image."""
    positives = labels[:, counted(labels)].sum(0)
    return np.concatenate([positives, positives])


def by_all_positives(labels: Indicators) -> Counts:
    """All labels of all images, but no more than there are images: those of one image are not independent."""
    return np.array([min(int(labels.sum()), len(labels))])


def worth_of_ranking(labels: Indicators, probabilities: Probabilities, values: Columns, strata: Strata) -> float | None:
    """How much more right decisions count than wrong ones, in parts of the weight that one has; None of none such.

    Args:
        labels: of the images.
        probabilities: of all classes.
        values: of each class.
        strata: `by_either` or `by_positives`.
    """
    every, counts, found = np.flatnonzero(counted(labels)), strata(labels), []
    for place, k in enumerate(every.tolist()):
        positive, right = labels[:, k], decisions(probabilities[:, k]) == labels[:, k]
        for part, count in ((positive, counts[place]), (~positive, counts[len(every) + place])):
            if (part & right).any() and (part & ~right).any():
                weight = len(labels) / (2 * count)
                found.append((values[part & right, k].mean() - values[part & ~right, k].mean()) / weight)
    return float(np.mean(found)) if found else None


def worth_of_loss(labels: Indicators, probabilities: Probabilities, losses: Columns) -> float | None:
    """How much more an image with wrong decisions loses, as many as such images have; None without any.

    `losses` (n, K), whose mean over classes is what an image counts.
    """
    wrong = decisions(probabilities) != labels
    if not wrong.any() or wrong.all():
        return None
    together = wrong.sum() / wrong.any(1).sum()
    return float(together / labels.shape[1] * (losses[wrong].mean() - losses[~wrong].mean()))
