"""Prints the results: a table, the verdicts as sentences, and the failed trials."""

from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gapstone.comparing.report import number_text
from gapstone.comparing.report.number_text import NOTHING, count_noun, percent, plus_minus, short, signed
from gapstone.comparing.speed_differences import against, caution
from gapstone.console.formatting import display

STYLES = {"better": "green", "worse": "red", "equivalent": "cyan", "cannot tell": "yellow"}
PHRASES = {"cannot tell": "do not differ detectably"}
WIDE = 100  # columns that the whole table needs


def render(results: dict[str, Any], console: Console) -> None:
    """Print results (the content of results.json); it is readable without colour, from 80 columns on."""
    console.print()
    console.print(_text(results["verdict"], "bold"))
    for finding in results["findings"]:
        console.print(_text(finding, ""))
    if warning := results["data"].get("caution"):  # results of earlier versions have none
        console.print(_text(warning, "yellow"))
    console.print()
    console.print(_table(results, console.width >= WIDE))
    console.print()
    _explain(results, console)
    for pair in results["pairs"]:
        _pair(pair, console)
    _shifted(results.get("shift_pairs", []), console)
    if results.get("localisation"):
        _localised(results, console)
    _failed(results, console)


def _beside(number: str, interval: str | None, wide: bool = True) -> str:
    if interval is None:
        return number
    interval = interval if wide else interval.replace("± ", "±").replace(" to ", "–")
    return f"{number}{interval}" if interval.startswith("±") and not wide else f"{number} {interval}"


def _table(results: dict[str, Any], wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("head", overflow="fold", min_width=6)
    moved = _moved(results)
    settings = results["settings"]
    deciding = results["metrics"][0]
    metric = deciding["name"] != "accuracy"
    score, multi_label = [deciding["short"]] if metric else [], results["data"].get("multi_label", False)
    columns = ["params", *(["in head"] if wide else []), *score, "train", "all right" if multi_label else "test"]
    columns += [*(["overfit"] if wide or not metric else []), *(["shift"] if moved else [])]
    columns += [*(["ECE"] if wide else []), "ms/image" if wide else "ms"]
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"against {results['settings']['baseline']}" if wide else "verdict", no_wrap=not wide)
    verdicts = {pair["a"]: pair["verdict"] for pair in results["pairs"]}
    for head in results["heads"]:
        test, speed = head["test_accuracy"], head["ms_per_image"]
        best = number_text.deciding(head, settings)
        interval = _beside(
            number_text.metric_value(best["mean"], deciding), number_text.metric_interval(best, deciding, wide), wide
        )
        cells = [
            short(head["parameters"]).replace(" ", ""),
            *([short(head["head_parameters"]).replace(" ", "")] if wide else []),
            *([interval] if metric else []),
            percent(number_text.beside_training(head, results["data"])["train"]),
            percent(test["mean"]) if metric else interval,
            *([percent(head["generalisation_gap"]["mean"])] if wide or not metric else []),
            *([percent((head.get("shift_balanced_accuracy") or head["shift_accuracy"])["mean"])] if moved else []),
            *([number_text.plain(head["ece"]["mean"], 3)] if wide else []),
            number_text.milliseconds(speed, quartiles=wide),
        ]
        word = "baseline" if head["head"] == results["settings"]["baseline"] else verdicts.get(head["head"], NOTHING)
        table.add_row(_text(head["head"], "bold"), *cells, Text(word, STYLES.get(word, "")))
    return table


def _moved(results: dict[str, Any]) -> bool:
    """Whether robustness was measured."""
    return any(head["shift"] for head in results["heads"])


def _explain(results: dict[str, Any], console: Console) -> None:
    repeats = number_text.repeats(results["settings"])
    data, words = results["data"], results["metrics"][0]["words"]
    multi_label = data.get("multi_label", False)
    text = f"{'In' if multi_label else 'Accuracies in'} %, means over {repeats}; {number_text.images_of_groups(data)}. "
    others = number_text.by_chance(data)
    if intervals := number_text.about_intervals(results["heads"], results["settings"], words, others):
        text += f"{intervals} "
    text += "train: mAP on the training images. " if multi_label else ""
    text += f"overfit: train − test{' mAP' if multi_label else ''}, in percentage points. "
    if (metric := results["metrics"][0])["name"] != "accuracy":
        lower = " (lower is better)" if metric["lower_is_better"] else ""
        words = metric["words"] if metric["words"] == metric["short"] else f"{metric['short']}: {metric['words']}"
        text += f"{words} on the test images{lower}, which decides the verdicts. "
    if multi_label:
        text += "all right: images of which every class is answered right, and no other. "
    if _moved(results):
        text += f"shift: {'balanced accuracy of ' if multi_label else ''}test images moved by a few pixels. "
    console.print(_text(text + number_text.sensitivity(results["pairs"]), "dim"))
    if timing := against(results["heads"], results["settings"]["baseline"]):
        console.print(_text(timing, "dim"))
    for remark in (*results["remarks"], caution(results["heads"])):
        if remark:
            console.print(_text(remark, "yellow"))
    console.print()


def _pair(pair: dict[str, Any], console: Console) -> None:
    line = _text(number_text.compared(pair), "")
    line.highlight_words([PHRASES.get(pair["verdict"], pair["verdict"])], STYLES.get(pair["verdict"], ""))
    console.print(line)
    for more in (pair.get("note"), pair["advice"]):
        if more:
            console.print(Padding(_text(more, "dim"), (0, 0, 0, 2), expand=False))


def _shifted(pairs: list[dict[str, Any]], console: Console) -> None:
    if not pairs:
        return
    verdicts = ", ".join(f"{pair['a']} {_verdict(pair)}" for pair in pairs)
    console.print()
    console.print(_text(f"Shifted test images, against {pairs[0]['b']} in percentage points: {verdicts}.", ""))


def _verdict(pair: dict[str, Any]) -> str:
    return f"{pair['verdict']} ({signed(pair['difference'], pair['digits'])})"


def _localised(results: dict[str, Any], console: Console) -> None:
    """Print the localisation scores of each head; the boxes that ignore the image stand below."""
    heads = [head for head in results["heads"] if head["localisation"]]
    tuned, multi_label = any(head["localisation"]["tuned"] for head in heads), results["data"].get("multi_label", False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("maps of", overflow="fold", min_width=9)
    for name in (
        "GT-known",
        *(["tuned"] if tuned else []),
        "answered" if multi_label else "top-1",
        "pointing",
        "energy",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("against " + results["settings"]["baseline"])
    verdicts = {pair["a"]: _verdict(pair) for pair in results["localisation_pairs"]}
    for head in heads:
        scores = head["localisation"]
        mark = "" if scores["additive"] else " *"
        gt_known = _beside(percent(scores["gt_known"]["mean"]), plus_minus(scores["gt_known"]))
        best = [percent(scores["tuned"]["mean"] if scores["tuned"] else None)] if tuned else []
        others = [percent(scores[key]["mean"]) for key in ("top1", "pointing", "energy")]
        word = "baseline" if head["head"] == results["settings"]["baseline"] else verdicts.get(head["head"], NOTHING)
        style = STYLES.get(word.partition(" (")[0], "")
        table.add_row(_text(head["head"] + mark, "bold"), gt_known, *best, *others, Text(word, style))
    for box_scores in results["localisation"]["baselines"]:
        numbers = [NOTHING, percent(box_scores["pointing"]), percent(box_scores["energy"])]
        cells = [percent(box_scores["gt_known"]), *([NOTHING] if tuned else []), *numbers, "looks at nothing"]
        table.add_row(_text(box_scores["name"], "dim"), *(Text(cell, "dim") for cell in cells))
    console.print()
    console.print(table)
    console.print()
    images = count_noun(results["localisation"]["pictures"], "test image")
    notes = [
        f"In % of the {results['localisation']['maps']:,} maps of classes with boxes, in {images}."
        if multi_label
        else f"In % of {images} with boxes.",
        "GT-known localisation: the box around what is above 20 % of the true class's map has an IoU of at least 0.5"
        + ("; tuned: at the validation images' best threshold." if tuned else "."),
        "answered: and the class is answered." if multi_label else "top-1: and the prediction is correct.",
        "pointing: the map's highest point lies in a box. energy: share of the positive evidence inside the boxes.",
        "" if multi_label else "Maps are minus the mean of all classes'.",
        "In brackets: difference in percentage points.",
    ]
    if not all(head["localisation"]["additive"] for head in heads):
        notes.append("*: the map does not add up to the logit.")
    console.print(_text(" ".join(filter(None, notes)), "dim"))


def _failed(results: dict[str, Any], console: Console) -> None:
    failed = [trial for trial in results["trials"] if trial["status"] == "failed"]
    if not failed:
        return
    console.print()
    console.print(_text(f"{count_noun(len(failed), 'trial')} of {len(results['trials'])} failed:", "bold red"))
    reasons: dict[tuple[str, str, str], list[int]] = {}
    for trial in failed:
        kind, number = ("seed", trial["seed"]) if trial["fold"] is None else ("fold", trial["fold"])
        reasons.setdefault((trial["head"], trial["reason"], kind), []).append(number)
    for (head, reason, kind), numbers in reasons.items():
        which = f"{kind}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
        console.print(Padding(_text(f"{head}, {which}: {reason}", ""), (0, 0, 0, 2), expand=False))


def _text(content: str, style: str) -> Text:
    """Text that is not read as markup, with unprintable characters escaped."""
    return Text(display(content), style)
