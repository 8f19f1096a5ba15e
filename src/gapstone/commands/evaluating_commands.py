"""The command that asks models about labelled images: evaluate."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from gapstone.commands.option_types import (
    BatchSize,
    Device,
    DuplicatesOption,
    DuplicateThreshold,
    Group,
    GroupPattern,
    Json,
    MultiLabel,
    OfHead,
    Weights,
    from_options,
    loading,
    not_empty,
    path_option,
)
from gapstone.console.options import results_folder


def evaluate(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            parser=not_empty,
            metavar="MODEL…",
            help="Files that `gapstone train` or `compare` wrote, a folder of `compare`, timm:NAME, hf:FOLDER, or a "
            "network's name with --weights; all others are compared with the first.",
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            parser=not_empty,
            metavar="DATA",
            help="Labelled images, in any form of DATA; its classes are named as the models' are.",
        ),
    ],
    split: Annotated[
        Literal["auto", "train", "val", "test", "all"],
        typer.Option(
            help="Which part of DATA; auto: test, or val where it gives no test images, or all where it gives neither. "
            "Images that a model was trained on are left out in any case."
        ),
    ] = "auto",
    metric: Annotated[
        str | None,
        typer.Option(
            help="What decides between models: accuracy, balanced_accuracy, macro_f1, auroc, average_precision, nll, "
            "brier, top5, FILE.py:FUNCTION (default: accuracy; balanced_accuracy where a class has over three times "
            "the images of another).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, path_option("Where results go (default: runs/evaluate-NAME).")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many images.")] = None,
    weights: Weights = None,
    batch_size: BatchSize = 64,
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="bfloat16 is faster on some machines and less exact.")
    ] = "float32",
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes that read images (default: one per core).", show_default=False)
    ] = None,
    duplicates: DuplicatesOption = "group",
    duplicate_threshold: DuplicateThreshold = None,
    group: Group = None,
    group_pattern: GroupPattern = None,
    multi_label: MultiLabel = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="No image is moved or resized, and the models are not timed.")
    ] = False,
    as_json: Json = False,
    head: OfHead = None,
) -> None:
    """How good models are on labelled images: metrics with intervals, confusion, calibration, worst answers, a page.

    Two models are compared image by image, with a verdict: gapstone evaluate old.safetensors new.safetensors photos/

    The same command again, after Ctrl-C or a crash, goes on where it was.
    """
    with loading():
        from gapstone.evaluating.evaluate import evaluate as run
        from gapstone.evaluating.evaluate_request import EvaluateRequest
        from gapstone.models.of_comparison import model_of

    files = tuple(model_of(model, head) for model in models)
    request = from_options(EvaluateRequest, context, models=files, part=split, names=())
    command = shlex.join(["gapstone", *sys.argv[1:]])
    run(request, out or results_folder("evaluate", data), command=command, as_json=as_json)
