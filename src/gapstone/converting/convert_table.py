"""The table of a conversion: the model before and after, side by side, and sentences that interpret it."""

from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.table import Table

from gapstone.console.formatting import count_noun, format_size
from gapstone.converting.conversion import Converted
from gapstone.converting.model_measures import ModelCosts
from gapstone.models.classifier import Classifier
from gapstone.training.learning_checks import few_validation


def print_table(converted: Converted, console: Console) -> None:
    before, after, paired = converted.before, converted.after, converted.paired
    table = Table("", box=box.SIMPLE_HEAD)
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row("head", before.head, after.head)
    multi_label = isinstance(converted.fitted.model, Classifier) and converted.fitted.model.multi_label
    table.add_row(
        f"{'all labels right' if multi_label else 'test accuracy'}, {count_noun(len(converted.correct), 'image')}",
        _percent(paired.before if paired else None),
        _percent(float(converted.correct.mean())),
    )
    before_moved, after_moved = converted.moved
    table.add_row(
        f"… moved by {converted.distance} px",
        "resized" if paired and before_moved is None else _percent(before_moved),
        _percent(after_moved),
    )
    for title, value in _ROWS.items():
        table.add_row(title, value(before), value(after))
    console.print(table)
    for line in sentences(converted):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


_ROWS: dict[str, Callable[[ModelCosts], str]] = {
    "parameters": lambda costs: f"{costs.parameters:,}",
    "… of these in the head": lambda costs: f"{costs.head_parameters:,}",
    "weights": lambda costs: _bytes(costs.bytes),
    "multiply-adds per image": lambda costs: f"{costs.macs / 1e6:,.1f} million",
    "input sizes it accepts": lambda costs: costs.sizes,
}


def sentences(converted: Converted) -> list[str]:
    """Sentences: how the head was fitted, the change in accuracy, and what to try next."""
    request, fitted, paired = converted.request, converted.fitted, converted.paired
    method = {
        "logistic": "Logistic regression",
        "ridge": "Ridge regression on the labels",
        "distil": "Ridge regression on the old head's logits",
    }[request.method]
    lines = [f"{method}, penalty {fitted.penalty:.2g}, {converted.seconds:.0f} s in all."]
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
        size_before = converted.before.only_input if paired else None
        before = f"; before: resized to {format_size(size_before)}, which is all it takes" if size_before else ""
        models = "Before and after" if paired and not size_before else "After"
        lines.append(f"{models}: every picture as it is, neither cut nor resized{before}.")
    if paired is not None:
        lines.append(paired.verdict(converted.after.head))
        if paired.worse and tuned is None:
            option = "--finetune 30, without --native," if request.native else "--finetune 30"
            lines.append(f"Its features were made for another head: {option} trains the last stage for this one.")
    if tuned is not None and (note := few_validation(len(converted.split.validation))):
        lines.append(note)
    if converted.before.only_input and not converted.after.only_input and not request.native:
        size = format_size(converted.before.only_input)
        lines.append(f"It accepts other sizes than {size} now; how accurate it is there was not measured.")
    return lines


def _percent(share: float | None) -> str:
    return "other classes" if share is None else f"{100 * share:.1f} %"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
