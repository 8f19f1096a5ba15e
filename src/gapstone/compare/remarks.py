"""Remarks on the results of a comparison: sentences that qualify the numbers; none if there is nothing to remark."""

from typing import Any

from gapstone.compare.verdict import listed
from gapstone.console.formatting import span
from gapstone.training.learning_checks import few_validation, learned, majority


def remarks(results: dict[str, Any]) -> list[str]:
    """The remarks on the results, as in results.json.

    >>> remarks(results)
    ['fc is hardly better than always predicting the largest class (55.0 % of the training images): train 58.0 %, …']
    """
    data = results["data"]
    few = few_validation(data["validation"], tuned=results["settings"]["tuning"] is not None)
    sentences = [*one_answer(results), *unlearned(results), data["cropped"], few, *_epochs(results)]
    return [sentence for sentence in sentences if sentence]


def learned_with(results: dict[str, Any], seed: int) -> list[bool]:
    """For each head, whether its trial of that seed is clearly better than the largest class."""
    largest_class = majority(results["data"]["counts"]["train"])
    accuracy = {trial["head"]: trial["train_accuracy"] for trial in results["trials"] if trial["seed"] == seed}
    accuracies = (accuracy.get(head["head"]) for head in results["heads"])
    return [value is None or learned(value, largest_class) for value in accuracies]


def unlearned(results: dict[str, Any]) -> list[str]:
    """A sentence for each head that is hardly better than the largest class, on the training or the test images."""
    sentences = []
    counts = results["data"]["counts"]
    for head in results["heads"]:
        for part, where in (("train", "training"), ("test", "test")):
            accuracy, largest_class = head[f"{part}_accuracy"]["mean"], majority(counts[part])
            if accuracy is None or learned(accuracy, largest_class):
                continue
            better = "no better" if accuracy <= largest_class else "hardly better"
            sentences.append(
                f"{head['head']} is {better} than always predicting the largest class: {100 * accuracy:.1f} % of the "
                f"{where} images, the largest class is {100 * largest_class:.1f} %. Its numbers and maps say little "
                f"about the head; try more epochs or another learning rate."
            )
            break
    return sentences


def one_answer(results: dict[str, Any]) -> list[str]:
    """A sentence for each head that predicts the same class for all test images."""
    sentences = []
    for head in results["heads"]:
        answered = [k for k, column in enumerate(zip(*(head["confusion"] or []), strict=True)) if any(column)]
        if len(answered) == 1:
            label = results["data"]["classes"][answered[0]]
            sentences.append(f"{head['head']} predicts {label!r} for every test image: it has learned nothing else.")
    return sentences


def _epochs(results: dict[str, Any]) -> list[str]:
    """A sentence if the trials ran for different numbers of epochs."""
    ran: dict[str, list[int]] = {head["head"]: [] for head in results["heads"]}
    for trial in results["trials"]:
        if trial["epochs"]:
            ran[trial["head"]].append(trial["epochs"])
    ran = {head: epochs for head, epochs in ran.items() if epochs}
    if len({count for epochs in ran.values() for count in epochs}) < 2:
        return []
    counts = listed([f"{head} {span(min(epochs), max(epochs), 0)}" for head, epochs in ran.items()])
    return [
        f"Early stopping gave the trials unequal numbers of epochs (of {results['settings']['epochs']}): {counts}. "
        f"Accuracies and training times are of these."
    ]
