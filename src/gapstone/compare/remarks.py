"""What whoever reads the numbers of a comparison must know beside them, a sentence each; none where all is well."""

from typing import Any

from gapstone.compare.verdict import listed
from gapstone.console.formatting import span
from gapstone.training.learning_checks import few_validation, learned, majority


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
