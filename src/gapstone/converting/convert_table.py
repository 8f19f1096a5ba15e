"""Before and after, side by side, and what that means in a sentence."""

from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.table import Table

from gapstone.console.formatting import count_noun, format_size
from gapstone.converting.converted import Converted
from gapstone.converting.model_measures import ModelCosts
from gapstone.models.classifier import Classifier
from gapstone.training.loop import few_validation


def show(converted: Converted, new: Classifier, console: Console) -> None:
    """Print it."""
    before, after, paired = converted.before, converted.after, converted.paired
    table = Table("", box=box.SIMPLE_HEAD)
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row("head", before.head, after.head)
    table.add_row(
        f"test accuracy, {count_noun(len(converted.test), 'image')}",
        _percent(paired.before if paired else None),
        _percent(float(converted.test.mean())),
    )
    before_moved, after_moved = converted.moved
    table.add_row(
        f"… moved by {converted.distance} px",
        "resized" if paired and before_moved is None else _percent(before_moved),
        _percent(after_moved),
    )
    for what, value in _ROWS.items():
        table.add_row(what, value(before), value(after))
    console.print(table)
    for line in sentences(converted):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


_ROWS: dict[str, Callable[[ModelCosts], str]] = {
    "parameters": lambda facts: f"{facts.parameters:,}",
    "… of these in the head": lambda facts: f"{facts.head_parameters:,}",
    "weights": lambda facts: _bytes(facts.bytes),
    "multiply-adds per image": lambda facts: _millions(facts.macs),
    "input sizes it accepts": lambda facts: facts.sizes,
}


def sentences(converted: Converted) -> list[str]:
    """What was done, what it cost, and what else may be tried."""
    request, fitted, paired = converted.request, converted.fitted, converted.paired
    how = {
        "logistic": "Logistic regression",
        "ridge": "Ridge regression on the labels",
        "distil": "Ridge regression on the old head's logits",
    }[request.method]
    lines = [f"{how}, penalty {fitted.penalty:.2g}, {converted.seconds:.0f} s in all."]
    tuned, epochs = fitted.tuned, count_noun(request.finetune, "epoch")
    if tuned is not None:
        change = f"{100 * tuned.accuracy[0]:.1f} % → {100 * tuned.accuracy[tuned.best]:.1f} % on the validation images"
        lines.append(
            f"Then the last stage and the head, {epochs}: {change} (epoch {tuned.best})."
            if tuned.best
            else f"Then {epochs} of the last stage and the head: none was better than the start, which was kept."
        )
        if tuned.stopped:
            lines.append(f"Fine-tuning ended after {len(tuned.accuracy) - 1} of {epochs}: {tuned.stopped}.")
    if request.native:
        as_it_is = "every picture as it is, neither cut nor resized"
        only = converted.before.only if paired else None
        before = f"; before: resized to {format_size(only)}, which is all it takes" if only else ""
        lines.append(f"{'Before and after' if paired and not only else 'After'}: {as_it_is}{before}.")
    if paired is not None:
        lines.append(paired.verdict(converted.after.head))
        if paired.interval[1] < 0 and tuned is None:
            option = "--finetune 30, without --native," if request.native else "--finetune 30"
            lines.append(f"Its features were made for another head: {option} trains the last stage for this one.")
    if tuned is not None and (said := few_validation(len(converted.parts.validation))):
        lines.append(said)
    if converted.before.only and not converted.after.only and not request.native:
        lines.append(
            f"It accepts other sizes than {format_size(converted.before.only)} now; how accurate it is there was not "
            f"measured."
        )
    return lines


def _percent(share: float | None) -> str:
    return "other classes" if share is None else f"{100 * share:.1f} %"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.1f} million"
