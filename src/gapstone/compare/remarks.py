"""What whoever reads the numbers of a comparison must know beside them, a sentence each; none where all is well."""

from collections.abc import Sequence
from typing import Any

from gapstone.compare.verdict import listed
from gapstone.shown import many, span

SKILL = 0.1
"""Of the way from the majority class to 100 %: a head that went less far has hardly learned anything."""
FEW = 100
"""Validation images, below which one of them decides which epoch is best."""


def remarks(results: dict[str, Any]) -> list[str]:
    """Of results.json.

    >>> remarks(results)
    ['fc is hardly better than always predicting the largest class (55.0 % of the training images): train 58.0 %, …']
    """
    data = results["data"]
    found = [
        *unlearned(results),
        data["cropped"],
        few_validation(data["validation"]),
        *_epochs(results),
    ]
    return [one for one in found if one]


def majority(counts: Sequence[int]) -> float:
    """The accuracy of always predicting the largest class."""
    return max(counts, default=0) / max(sum(counts), 1)


def learned(accuracy: float, majority: float) -> bool:
    """Is that accuracy more than hardly better than the majority class's?

    >>> learned(0.58, majority=0.55), learned(0.15, majority=0.1), learned(0.7, majority=0.55)
    (False, False, True)
    """
    return accuracy - majority >= SKILL * (1 - majority)


def learned_with(results: dict[str, Any], seed: int) -> list[bool]:
    """Which heads are more than hardly better than the largest class, in the trials of that seed."""
    most = majority(results["data"]["counts"]["train"])
    accuracy = {trial["head"]: trial["train_accuracy"] for trial in results["trials"] if trial["seed"] == seed}
    found = (accuracy.get(head["head"]) for head in results["heads"])
    return [one is None or learned(one, most) for one in found]


def unlearned(results: dict[str, Any]) -> list[str]:
    """Heads that are hardly better than the largest class, on the training images or on the test images."""
    said = []
    counts = results["data"]["counts"]
    for head in results["heads"]:
        for part, where in (("train", "training"), ("test", "test")):
            accuracy, most = head[f"{part}_accuracy"]["mean"], majority(counts[part])
            if accuracy is None or learned(accuracy, most):
                continue
            better = "no better" if accuracy <= most else "hardly better"
            said.append(
                f"{head['head']} is {better} than always predicting the largest class: {100 * accuracy:.1f} % of the "
                f"{where} images, the largest class is {100 * most:.1f} %. Its numbers and maps say little about the "
                f"head; try more epochs or another learning rate."
            )
            break
    return said


def few_validation(images: int) -> str | None:
    """A best epoch chosen on few images is partly chosen by luck."""
    if not 0 < images < FEW:
        return None
    return (
        f"The best epoch was chosen on {many(images, 'validation image')}, where one image is "
        f"{100 / images:.1f} percentage points: which epoch is best is partly luck."
    )


def _epochs(results: dict[str, Any]) -> list[str]:
    """Heads that trained for different numbers of epochs."""
    asked = results["settings"]["epochs"]
    ran = {
        head["head"]: [
            trial["epochs"] for trial in results["trials"] if trial["head"] == head["head"] and trial["epochs"]
        ]
        for head in results["heads"]
    }
    ran = {head: epochs for head, epochs in ran.items() if epochs}
    if len({one for epochs in ran.values() for one in epochs}) < 2:
        return []
    said = listed([f"{head} {span(min(epochs), max(epochs), 0)}" for head, epochs in ran.items()])
    return [
        f"Early stopping gave the trials unequal numbers of epochs (of {asked}): {said}. Accuracies and training times "
        f"are of these."
    ]
