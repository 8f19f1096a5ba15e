"""Remarks on the results of a comparison: sentences that qualify the numbers; none if there is nothing to remark."""

from collections.abc import Sequence
from typing import Any

from gapstone.comparing.verdict import listed
from gapstone.console.formatting import count_noun, span
from gapstone.drawing.confusion_picture import FEW
from gapstone.training.learning_checks import few_validation, learned, majority


def remarks(results: dict[str, Any]) -> list[str]:
    """The remarks on the results, as in results.json.

    >>> remarks(results)
    ['fc is hardly better than always predicting the largest class (55.0 % of the training images): train 58.0 %, …']
    """
    data = results["data"]
    few = few_validation(data["validation"], tuned=results["settings"]["tuning"] is not None)
    sentences = [
        *one_answer(results),
        *unlearned(results),
        *few_positives(results),
        data["cropped"],
        few,
        *_epochs(results),
    ]
    return [sentence for sentence in sentences if sentence]


def learned_with(results: dict[str, Any], seed: int) -> list[bool]:
    """For each head, whether its trial of that seed is clearly better than the largest class."""
    score, guessed = _beside_guessing(results["data"], "train")
    found = {trial["head"]: trial[f"train_{score}"] for trial in results["trials"] if trial["seed"] == seed}
    values = (found.get(head["head"]) for head in results["heads"])
    return [value is None or learned(value, guessed) for value in values]


def _beside_guessing(data: dict[str, Any], part: str) -> tuple[str, float]:
    """The measure by which a head has learned or not, and what guessing has: the largest class's accuracy.

    With several labels it is average precision, whose guess is the share of the images that a class has.
    """
    counts = data["counts"][part]
    if not data.get("multi_label"):
        return "accuracy", majority(counts)
    shares = [count / data[part] for count in counts if 0 < count < data[part]]
    return "average_precision", sum(shares) / max(len(shares), 1)


def unlearned(results: dict[str, Any]) -> list[str]:
    """A sentence for each head that is hardly better than guessing, on the training or the test images."""
    sentences = []
    multi_label = results["data"].get("multi_label", False)
    for head in results["heads"]:
        for part, where in (("train", "training"), ("test", "test")):
            score, guessed = _beside_guessing(results["data"], part)
            stat = head["metrics"][score] if multi_label and part == "test" else head[f"{part}_{score}"]
            if (value := stat["mean"]) is None or learned(value, guessed):
                continue
            better = "no better" if value <= guessed else "hardly better"
            said = (
                f"guessing: {100 * value:.1f} % mean average precision on the {where} images, guessing has "
                if multi_label
                else f"always predicting the largest class: {100 * value:.1f} % of the {where} images, the largest "
                "class is "
            )
            sentences.append(
                f"{head['head']} is {better} than {said}{100 * guessed:.1f} %. Its numbers and maps say little about "
                "the head; try more epochs or another learning rate."
            )
            break
    return sentences


def one_answer(results: dict[str, Any]) -> list[str]:
    """A sentence for each head that predicts the same for all test images, in all trials or in some."""
    sentences = []
    kind = "fold" if results["settings"]["folds"] else "seed"
    multi_label = results["data"].get("multi_label", False)
    for head in results["heads"]:
        constant: dict[tuple[str, ...], list[int]] = {}
        for trial in head.get("constant", _constant_before(head, results)):
            constant.setdefault(tuple(trial["answers"]), []).append(trial["seed"])
        for answers, seeds in constant.items():
            always = len(seeds) == len(head["test_accuracy"]["values"])
            which = "" if always else f", {kind}{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))},"
            end = "it has learned nothing else." if always else "nothing else was learned there."
            said = _answered(answers, multi_label, len(results["data"]["classes"]))
            sentences.append(f"{head['head']}{which} {said} for every test image: {end}")
    return sentences


def _constant_before(head: dict[str, Any], results: dict[str, Any]) -> list[dict[str, Any]]:
    """What results of earlier versions say of it: one class in all trials."""
    answered = [k for k, column in enumerate(zip(*(head["confusion"] or []), strict=True)) if any(column)]
    if len(answered) != 1:
        return []
    label = results["data"]["classes"][answered[0]]
    return [{"seed": seed, "answers": [label]} for seed in range(len(head["test_accuracy"]["values"]))]


def _answered(answers: Sequence[str], multi_label: bool, classes: int) -> str:
    """>>> _answered(["cat"], False, 3), _answered([], True, 3), _answered(["cat", "dog"], True, 3)
    ("predicts 'cat'", 'answers no class', "answers 'cat' and 'dog'")
    """
    if not multi_label:
        return f"predicts {answers[0]!r}"
    if not answers:
        return "answers no class"
    return "answers every class" if len(answers) == classes else f"answers {listed([repr(name) for name in answers])}"


def few_positives(results: dict[str, Any]) -> list[str]:
    """Sentences on classes that too few test images have, or lack, where images have several."""
    data = results["data"]
    if not data.get("multi_label"):
        return []
    sentences = []
    if out := data["uncounted"]:
        does = "it does" if len(out) == 1 else "they do"
        sentences.append(f"No test image, or every one, has {_some(out)}: {does} not count for means over classes.")
    few = [
        name
        for name, count in zip(data["classes"], data["counts"]["test"], strict=True)
        if name not in out and not FEW <= count <= data["test"] - FEW
    ]
    if few:
        sentences.append(
            f"Fewer than {FEW} test images have, or lack, {_some(few)}: so few say little, and intervals of means over "
            "classes may be too narrow."
        )
    return sentences


def _some(names: Sequence[str], most: int = 5) -> str:
    """>>> _some(["a", "b", "c"], most=1)
    "'a' and 2 other classes"
    """
    rest = [count_noun(len(names) - most, "other class", "other classes")] if len(names) > most else []
    return listed([repr(name) for name in names[:most]] + rest)


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
