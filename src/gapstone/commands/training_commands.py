"""The commands that begin with images: check, train, compare, report."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from gapstone.commands.config_file import Config
from gapstone.commands.option_types import (
    AugmentOption,
    Backbone,
    BalanceOption,
    BatchSize,
    Data,
    Device,
    DuplicatesOption,
    DuplicateThreshold,
    Epochs,
    Finetune,
    Freeze,
    FromScratch,
    Group,
    GroupPattern,
    LearningRate,
    Limit,
    MultiLabel,
    Optimizer,
    Patience,
    PrecisionOption,
    Pretrained,
    SampleWeight,
    Size,
    SplitShares,
    StartWeights,
    WeightDecay,
    from_options,
    loading,
    path_option,
    to_path,
)
from gapstone.console.options import results_folder


def compare(
    context: typer.Context,
    data: Data = "digits",
    heads: Annotated[
        str,
        typer.Option(
            help="Comma-separated: gap, gmp, gem, lse, avgmax, catavgmax, nin, fc, attention, own, and for ViTs cls, "
            "cls+gap; with hidden widths and options: fc:512,512:dropout=0.5, fc:grid=7, gem:p=learned, cls:layers=4."
        ),
    ] = "gap,gmp,nin,fc,fc:grid=4",
    backbone: Backbone = None,
    pretrained: Pretrained = False,
    seeds: Annotated[int, typer.Option(help="Trials per head.")] = 5,
    folds: Annotated[
        int | None, typer.Option(help="k-fold cross-validation instead of seeds and one test split.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The head all others are compared with (default: the first).", show_default=False)
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What decides the verdicts: accuracy, balanced_accuracy (each class counts the same), macro_f1, "
            "auroc, average_precision, nll, brier, top5 (or another number), or FILE.py:FUNCTION, a function of labels "
            "(n,) and probabilities (n, K). "
            "Default: accuracy; balanced_accuracy where a class has more than three times the images of another.",
            show_default=False,
        ),
    ] = None,
    freeze: Freeze = False,
    finetune: Finetune = False,
    from_scratch: FromScratch = False,
    weights: StartWeights = None,
    curve: Annotated[
        str | None,
        typer.Option(
            metavar="N,…,all",
            help="On a frozen backbone, also with so many labelled images of each class: 5,10,30,100,all; with several "
            "labels per image, so many in all.",
            show_default=False,
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        path_option(
            "Where the objects are, in pixels of the original photos: a table path,x0,y0,x1,y1[,class,width,height], "
            "COCO's instances.json, or a folder of Pascal VOC's .xml files; measures where each head looks. Added to a "
            "finished comparison, it trains again.",
            metavar="FILE|FOLDER",
        ),
    ] = None,
    out: Annotated[Path | None, path_option("Where results go (default: runs/compare-NAME).")] = None,
    size: Size = None,
    limit: Limit = None,
    epochs: Epochs = None,
    batch_size: BatchSize = 64,
    optimizer: Optimizer = "sgd",
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    augment: AugmentOption = "auto",
    balance: BalanceOption = "none",
    precision: PrecisionOption = "auto",
    device: Device = "auto",
    duplicates: DuplicatesOption = "group",
    duplicate_threshold: DuplicateThreshold = None,
    group: Group = None,
    group_pattern: GroupPattern = None,
    sample_weight: SampleWeight = None,
    multi_label: MultiLabel = False,
    split: SplitShares = None,
    patience: Patience = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Differences of the metric up to it do not matter, in percentage points (or the metric's unit): heads "
            "within it are called equivalent (default: 0.5). Decide it before you see results.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    workers: Annotated[
        int | None, typer.Option(help="Trials at a time (default: one per core; one on a GPU).", show_default=False)
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Train each network of a trial with 3 learning rates × 2 weight decays and let its validation images "
            "choose: 6 times the time. A rate or decay that is given is the only one. Frozen backbones do so anyway.",
        ),
    ] = False,
    keep: Annotated[
        Literal["best", "all", "none"],
        typer.Option(help="Which trained models are kept: of each head its best trial, those of all trials, or none."),
    ] = "best",
    quick: Annotated[
        bool,
        typer.Option("--quick", help="The verdict alone: no test image is moved or resized, and heads are not timed."),
    ] = False,
    trackers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:WHERE],…",
            help="Trackers of experiments: tensorboard:FOLDER, mlflow:EXPERIMENT, wandb:PROJECT; a run of each trial, "
            "and the report.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train one backbone under several heads and say which is better, by how much, and with what confidence.

    The same command again, after Ctrl-C or a crash, trains only what is missing.
    """
    with loading():
        from gapstone.comparing.compare_request import CompareRequest
        from gapstone.comparing.run_comparison import compare as run
        from gapstone.heads import split_specs
        from gapstone.library.listeners import Callbacks
        from gapstone.trackers import trackers_of
        from gapstone.training.training_data import TrainOptions

    listener = Callbacks(trackers=trackers_of(trackers.split(",") if trackers else []))
    request = from_options(
        CompareRequest,
        context,
        choices=from_options(TrainOptions, context, augmented=None),
        heads=tuple(split_specs(heads)),
        user_code=None,
    )
    command = shlex.join(["gapstone", *sys.argv[1:]])
    run(request, out or results_folder("compare", data), command=command, listener=listener)


def report(
    out: Annotated[Path, typer.Argument(parser=to_path, metavar="OUT", help="The --out folder of a comparison.")],
    table: Annotated[
        Literal["markdown", "latex"] | None,
        typer.Option(help="Print the table of the heads alone, for a page or a paper (LaTeX: with booktabs)."),
    ] = None,
    figures: Annotated[
        Literal["svg", "png", "pdf"] | None, typer.Option(help="Write the charts alone into OUT/figures.")
    ] = None,
) -> None:
    """Show a comparison's results again and rebuild its report.html."""
    with loading():
        from gapstone.comparing.run_comparison import report as run
        from gapstone.console.terminal import Terminal
        from gapstone.library.comparison import Comparison

    if table is None and figures is None:
        run(out)
        return
    results, console = Comparison.open(out), Terminal()
    if table is not None:
        console.print(results.table(table), soft_wrap=True)
    for path in results.save_figures(figures) if figures is not None else []:
        console.print(str(path), soft_wrap=True)


def check(
    data: Data,
    out: Annotated[
        Path | None, path_option("Where scan.json, scan.txt, scan.csv and scan.html go (default: runs/check-NAME).")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (default: one per core).", show_default=False)] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(help="Larger images are listed, not decoded (default: 178,956,970).", show_default=False),
    ] = None,
    duplicate_threshold: DuplicateThreshold = None,
    group: Group = None,
    group_pattern: GroupPattern = None,
    multi_label: MultiLabel = False,
) -> None:
    """Scan images for what spoils a comparison: unreadable files, duplicates, two labels. Changes no file.

    Exit code 1 where `compare` would refuse them.
    """
    with loading():
        from gapstone.data.check_data import check as run
        from gapstone.images.load import MAX_PIXELS

    most = MAX_PIXELS if max_pixels is None else max_pixels
    scan = run(data, out, workers, most, duplicate_threshold, group, group_pattern, multi_label)
    if scan.refused is not None:
        raise typer.Exit(1)


def train(
    context: typer.Context,
    data: Data = "digits",
    head: Annotated[str, typer.Option(help="One head, such as gap or fc:512:dropout=0.5.")] = "gap",
    backbone: Backbone = None,
    pretrained: Pretrained = False,
    freeze: Freeze = False,
    finetune: Finetune = False,
    from_scratch: FromScratch = False,
    weights: StartWeights = None,
    out: Annotated[Path, typer.Option(parser=to_path, metavar="PATH", help="The model's file.")] = Path(
        "model.safetensors"
    ),
    report: Annotated[
        Path | None, path_option("Also a folder with a page on the test images, as `gapstone evaluate` writes it.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    size: Size = None,
    limit: Limit = None,
    epochs: Epochs = None,
    batch_size: BatchSize = 64,
    optimizer: Optimizer = "sgd",
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    augment: AugmentOption = "auto",
    balance: BalanceOption = "none",
    precision: PrecisionOption = "auto",
    device: Device = "auto",
    duplicates: DuplicatesOption = "group",
    duplicate_threshold: DuplicateThreshold = None,
    group: Group = None,
    group_pattern: GroupPattern = None,
    sample_weight: SampleWeight = None,
    multi_label: MultiLabel = False,
    split: SplitShares = None,
    patience: Patience = None,
    config: Config = None,
) -> None:
    """Train one classifier and save it as one safe file: weights, labels, preprocessing, backbone and head.

    With photos, and wherever there are trained weights, the head alone is trained, as in `gapstone compare`.
    """
    with loading():
        from gapstone.comparing.compare_request import CompareRequest
        from gapstone.evaluating.train_model import train_model
        from gapstone.training.training_data import TrainOptions

    options = from_options(TrainOptions, context, augmented=None)
    request = CompareRequest(options, (head,), 1, weights=weights, freeze=freeze, finetune=finetune, quick=True)
    train_model(request, seed, out, report=report, command=shlex.join(["gapstone", *sys.argv[1:]]))
