"""The command line: thin, every command a few lines over the library, nothing heavy imported before it is needed."""

import os
import shlex
import sys
from dataclasses import fields
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import gapstone
from gapstone.console.formatting import lines, one_line, show_warnings
from gapstone.console.options import results_place
from gapstone.runtime import interrupts
from gapstone.storage.paths import sentence


class _StoppedError(Exception):
    """Carries KeyboardInterrupt and EOFError past typer, which would end in "Aborted." or without a word."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError) as error:
            raise _StoppedError from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare the heads of image classifiers on your own images, with honest statistics.",
)


def _given(name: str) -> str:
    """An empty name would mean the working folder (`--out "$UNSET"`)."""
    if not name.strip():
        raise typer.BadParameter("an empty name; write . to mean the working folder.")
    return name


def _path(name: str | Path) -> Path:
    return Path(_given(str(name)))


Data = Annotated[
    str,
    typer.Argument(
        parser=_given,
        metavar="DATA",
        help="digits (built in), a folder with a sub-folder per class, a folder with train/ val/ [test/], "
        "a CSV with path,label[,split], a folder of MNIST-style idx files, or an .npz with images and labels.",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(help="nin, nin:paper, vgg11, vgg16, resnet18, resnet50, timm:NAME, … (default: nin for small images, "
                 "resnet18 for photos)", show_default=False),
]  # fmt: skip
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="Start from timm's pretrained weights (timm:NAME only).")
]
Size = Annotated[
    str | None,
    typer.Option(
        help="What the network sees, in px: 96 or 96x128 (default: chosen from the images).", show_default=False
    ),
]
Limit = Annotated[int | None, typer.Option(help="At most so many training and so many test images.")]
Epochs = Annotated[int | None, typer.Option(help="(default: 10 to 40, fewer for more images)", show_default=False)]
BatchSize = Annotated[int, typer.Option()]
Optimizer = Annotated[Literal["sgd", "adamw"], typer.Option()]
LearningRate = Annotated[
    float | None,
    typer.Option(help="(default: 0.05, or 0.01 without a norm or pretrained; adamw 1e-3, 1e-4)", show_default=False),
]
WeightDecay = Annotated[float, typer.Option(help="Not on norms and biases.")]
AugmentOption = Annotated[Literal["auto", "none"], typer.Option(help="auto: flips and crops for colour pictures.")]
PrecisionOption = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="auto: what measures faster.")]
DuplicatesOption = Annotated[
    Literal["group", "drop", "keep"],
    typer.Option(
        help="Pictures that DATA holds more than once: kept on one side of the split, one of each used, or counted as "
        "any other."
    ),
]
DuplicateThreshold = Annotated[
    float | None,
    typer.Option(
        help="Likeness (correlation, 0.8 to 1) from which two pictures are one; 1: only where every pixel is the same "
        "(default: what suits DATA; `gapstone check` shows it).",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        parser=_given,
        metavar="MODEL",
        help="A file that `gapstone train` wrote, timm:NAME (its weights are fetched), or a network's name with "
        "--weights.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        parser=_path,
        metavar="PATH",
        help="A safetensors file with the weights for timm:NAME (instead of the hub) or for a network's name: vgg16.",
        show_default=False,
    ),
]
StartWeights = Annotated[
    Path | None,
    typer.Option(
        parser=_path,
        metavar="FILE",
        help="Trained weights the backbone starts from: a model that `gapstone train` wrote, or a safetensors "
        "state_dict for --backbone.",
        show_default=False,
    ),
]
Native = Annotated[
    bool,
    typer.Option(
        "--native/--resize", help="Every picture as it is, neither cut nor resized; or as the model was trained."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]


@app.callback(invoke_without_command=True)
def version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"gapstone {gapstone.__version__}")
        raise typer.Exit


@app.command()
def compare(
    data: Data = "digits",
    heads: Annotated[
        str,
        typer.Option(
            help="Comma-separated: gap, gmp, gem, lse, avgmax, catavgmax, nin, fc; with hidden widths "
            "and options: fc:512,512:dropout=0.5, fc:grid=7, gem:p=learned."
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
    freeze: Annotated[
        bool,
        typer.Option(
            "--freeze",
            help="The backbone, with its trained weights (--weights or --pretrained), is not trained: it looks at "
            "every image once, and every head is trained on what it saw.",
        ),
    ] = False,
    weights: StartWeights = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="CSV",
            help="Where the objects are: path,x0,y0,x1,y1[,class,width,height] in pixels of the original photos; "
            "measures where each head looks. Added to a finished comparison, it trains again.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=_path, metavar="PATH", help="Where results go (default: runs/compare-NAME).", show_default=False
        ),
    ] = None,
    size: Size = None,
    limit: Limit = None,
    epochs: Epochs = None,
    batch_size: BatchSize = 64,
    optimizer: Optimizer = "sgd",
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = 5e-4,
    augment: AugmentOption = "auto",
    precision: PrecisionOption = "auto",
    device: Device = "auto",
    duplicates: DuplicatesOption = "group",
    duplicate_threshold: DuplicateThreshold = None,
    workers: Annotated[
        int | None, typer.Option(help="Trials at a time (default: one per core; one on a GPU).", show_default=False)
    ] = None,
) -> None:
    """Train one backbone under several heads and say which is better, by how much, and with what confidence.

    The same command again, after Ctrl-C or a crash, trains only what is missing.
    """
    given = locals()  # by name: thirteen options in the right order would be luck
    with _loading():
        from gapstone.compare.plan import CompareRequest
        from gapstone.compare.run_comparison import compare as run
        from gapstone.heads import split_specs
        from gapstone.training.training_data import TrainOptions

    choices = TrainOptions(**{option.name: given[option.name] for option in fields(TrainOptions)})
    request = CompareRequest(
        choices, tuple(split_specs(heads)), seeds, folds, baseline, workers, boxes, weights, freeze
    )
    run(
        request, out or Path("runs") / f"compare-{results_place(data)}", command=shlex.join(["gapstone", *sys.argv[1:]])
    )


@app.command()
def report(
    out: Annotated[Path, typer.Argument(parser=_path, metavar="OUT", help="The --out folder of a comparison.")],
) -> None:
    """Show a comparison's results again and rebuild its report.html."""
    with _loading():
        from gapstone.compare.run_comparison import report as run

    run(out)


@app.command()
def check(
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="Where scan.json, scan.txt, scan.csv and scan.html go (default: runs/check-NAME).",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (default: one per core).", show_default=False)] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(help="Larger images are listed, not decoded (default: 178,956,970).", show_default=False),
    ] = None,
    duplicate_threshold: DuplicateThreshold = None,
) -> None:
    """Scan images for what spoils a comparison: unreadable files, duplicates, two labels. Changes no file.

    Exit code 1 where `compare` would refuse them.
    """
    with _loading():
        from gapstone.data.check_data import check as run
        from gapstone.images.load import MAX_PIXELS

    found = run(data, out, workers, MAX_PIXELS if max_pixels is None else max_pixels, duplicate_threshold)
    if found.refused is not None:
        raise typer.Exit(1)


@app.command()
def train(
    data: Data = "digits",
    head: Annotated[str, typer.Option(help="One head, such as gap or fc:512:dropout=0.5.")] = "gap",
    backbone: Backbone = None,
    pretrained: Pretrained = False,
    out: Annotated[Path, typer.Option(parser=_path, metavar="PATH", help="The model's file.")] = Path(
        "model.safetensors"
    ),
    seed: Annotated[int, typer.Option()] = 0,
    size: Size = None,
    limit: Limit = None,
    epochs: Epochs = None,
    batch_size: BatchSize = 64,
    optimizer: Optimizer = "sgd",
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = 5e-4,
    augment: AugmentOption = "auto",
    precision: PrecisionOption = "auto",
    device: Device = "auto",
    duplicates: DuplicatesOption = "group",
    duplicate_threshold: DuplicateThreshold = None,
) -> None:
    """Train one classifier and save it as one safe file: weights, labels, preprocessing, backbone and head."""
    given = locals()
    with _loading():
        from gapstone.commands.train_predict import train_one
        from gapstone.training.training_data import TrainOptions

    choices = TrainOptions(**{option.name: given[option.name] for option in fields(TrainOptions)})
    train_one(choices, head, seed, out)


@app.command()
def predict(
    model: Model,
    images: Annotated[
        list[str], typer.Argument(parser=_given, metavar="IMAGES…", help="Image files, or folders of them.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output instead of a table.")
    ] = False,
    top: Annotated[int, typer.Option(help="Labels shown per image.")] = 3,
    native: Native = False,
    device: Device = "auto",
    weights: Weights = None,
) -> None:
    """A model's predictions and their confidence. An image without one is listed with its reason (exit code 1)."""
    with _loading():
        from gapstone.commands.train_predict import predict_files

    if not predict_files(model, images, as_json, top, device, native=native, weights=weights):
        raise typer.Exit(1)


@app.command()
def explain(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            parser=_given, metavar="IMAGES…", help="Image files, folders of them, or quoted globs: 'new/**/*.jpg'."
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            help="These classes, by label or number: cat,dog (default: the most probable).", show_default=False
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="How many of the most probable classes per image.")] = 3,
    all_classes: Annotated[
        bool, typer.Option("--all", help="Keep the maps of all classes; --top of them are shown.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=_path, metavar="PATH", help="Where results go (default: runs/explain-MODEL).", show_default=False
        ),
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Also one page of all pictures that needs no network.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output instead of a table.")
    ] = False,
    drawings: Annotated[bool, typer.Option("--drawings/--no-drawings", help="A PNG per picture.")] = True,
    box: Annotated[
        str, typer.Option(help="The box around the evidence: a share of its maximum (the CAM paper's 0.2), otsu, none.")
    ] = "0.2",
    how: Annotated[
        Literal["smooth", "cells"], typer.Option(help="Between the cells' centres, or cell by cell.")
    ] = "smooth",
    alpha: Annotated[float, typer.Option(help="Opacity of the strongest evidence.")] = 0.88,
    native: Native = False,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option()] = 32,
    weights: Weights = None,
) -> None:
    """Show what a model looks at: what every place of a picture adds to each class's logit, from one forward pass.

    The same command again, after Ctrl-C or a crash, does only what is missing. An unreadable picture is listed with
    its reason (exit code 1).
    """
    given = locals()
    with _loading():
        from gapstone.explaining.explain_files import explain_files
        from gapstone.explaining.explain_request import ExplainRequest

    named = {field.name: given[field.name] for field in fields(ExplainRequest)}
    if not explain_files(
        ExplainRequest(**named | {"images": tuple(images)}), out or Path("runs") / f"explain-{results_place(model)}"
    ):
        raise typer.Exit(1)


@app.command()
def inspect(
    model: Annotated[
        str,
        typer.Argument(
            parser=_given,
            metavar="MODEL",
            help="A file that `gapstone train` wrote, a network's name (vgg16), timm:NAME, torchvision:NAME.",
        ),
    ],
    size: Annotated[
        str | None,
        typer.Option(
            help="Of the images, in px: 224 or 224x160 (default: the model's own, or 224).", show_default=False
        ),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Levels of modules shown (default: as many as can be read).", show_default=False)
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Of the images (default: the model's own, or 3).", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output instead of tables.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(parser=_path, metavar="FILE", help="Also draw it: .png or .svg.", show_default=False)
    ] = None,
) -> None:
    """Where a network's parameters and multiply-adds are, which sizes it takes, what another head would cost on it."""
    with _loading():
        from gapstone.inspecting.inspect_command import inspect_model

    inspect_model(model, size, channels, as_json, depth, picture)


@app.command()
def convert(
    model: Model,
    head: Annotated[str, typer.Option(help="The new head, such as gap or fc:grid=7.")] = "gap",
    data: Annotated[
        str | None,
        typer.Option(
            parser=_given, metavar="DATA", help="Labelled images to fit it to, in any form of DATA.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(parser=_path, metavar="PATH", help="The new model's file.")] = Path(
        "converted.safetensors"
    ),
    finetune: Annotated[
        int, typer.Option(metavar="EPOCHS", help="Then train the network's last block, too, from what it was given.")
    ] = 0,
    method: Annotated[
        Literal["logistic", "ridge", "distil"],
        typer.Option(help="logistic regression, ridge on the labels, or ridge on the old head's logits."),
    ] = "logistic",
    limit: Limit = None,
    weights: Weights = None,
    native: Native = False,
    seed: Annotated[
        int,
        typer.Option(
            help="The one the model was trained with: with another, images it was trained on choose penalty and epoch."
        ),
    ] = 0,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    duplicates: DuplicatesOption = "group",
    duplicate_threshold: DuplicateThreshold = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output instead of a table.")
    ] = False,
) -> None:
    """Another head on a trained model: one pass over the images, then solved, not trained; and what it cost.

    The new head and the old one are compared on test images. After Ctrl-C the same command goes on where it was.
    """
    given = locals()
    with _loading():
        from gapstone.converting.convert import convert as run
        from gapstone.converting.convert_request import ConvertRequest

    run(ConvertRequest(**{field.name: given[field.name] for field in fields(ConvertRequest)}), as_json)


@app.command()
def export(
    model: Model,
    onnx: Annotated[
        Path | None, typer.Option(parser=_path, metavar="PATH", help="Write this ONNX file.", show_default=False)
    ] = None,
    pt2: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="Write this torch.export file, read without gapstone.",
            show_default=False,
        ),
    ] = None,
    maps: Annotated[bool, typer.Option("--maps/--no-maps", help="The maps of all classes as a second output.")] = True,
    opset: Annotated[int, typer.Option(help="Of the ONNX file: 18 to 23.")] = 18,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also NAME.int8.onnx, calibrated and measured on --data.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            parser=_given, metavar="DATA", help="For --int8: labelled images, in any form of DATA.", show_default=False
        ),
    ] = None,
    weights: Weights = None,
    duplicates: DuplicatesOption = "group",
    duplicate_threshold: DuplicateThreshold = None,
) -> None:
    """Write a model as ONNX or .pt2: logits and maps, any batch and size the head takes, checked before it says done.

    A file that is there already is replaced once the new one has passed.
    """
    with _loading():
        from gapstone.export.export_model import export as run

    run(
        model,
        onnx,
        pt2,
        maps=maps,
        opset=opset,
        int8=int8,
        data=data,
        weights=weights,
        duplicates=duplicates,
        duplicate_threshold=duplicate_threshold,
    )


@app.command()
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            parser=_given,
            metavar="MODEL [MODEL2]",
            help="A file that `gapstone train` wrote, or timm:NAME; two are shown side by side.",
        ),
    ],
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="(default: 8765 or the next free one; 0: any)", show_default=False),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen. 0.0.0.0 opens it to all who can reach this machine, without password.")
    ] = "127.0.0.1",
    device: Device = "auto",
    weights: Weights = None,
) -> None:
    """A page where a picture is dropped in: its classes, and where in the picture each of them comes from."""
    with _loading():
        from gapstone.serve.run_server import serve as run

    run(models, host, port, device, weights=weights)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, every case by itself.")] = False,
    wide: Annotated[bool, typer.Option("--all", help="A table for every dtype and layout, also where alike.")] = False,
) -> None:
    """What this machine has, and which loop serves which pool over which region, by device and dtype, and why."""
    with _loading():
        from gapstone.bench.doctor import doctor as run

    run(as_json, wide)


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds per case, at most.")] = 15,
    quick: Annotated[bool, typer.Option("--quick", help="Three rounds: a first look.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="1: CPU time, which repeats best; more: wall time.")] = 1,
    only: Annotated[str, typer.Option(metavar="REGEX", help="Only such cases: 'gem', 'backward', '×112'.")] = "",
    out: Annotated[
        Path | None,
        typer.Option("--json", parser=_path, metavar="FILE", help="Also write all numbers here.", show_default=False),
    ] = None,
) -> None:
    """Measure the pools networks run all day against torch on this machine, losses included.

    Two minutes with --quick, three without; most of the first run compiles kernels, which later runs load from disk.
    Every answer is checked before it is timed; a wrong one gets no time, and exit code 1.
    """
    with _loading():
        from gapstone.bench.run_bench import bench as run
        from gapstone.console.terminal import Terminal

    if not run(Terminal(), 3 if quick else rounds, threads, out, only):
        raise typer.Exit(1)


def _loading() -> Any:
    from gapstone.console.progress import loading  # rich, whose bars cost `gapstone --help` too much

    return loading()


def main() -> int:
    """Run a command; the exit code. What the user can mend is told in a sentence (GAPSTONE_TRACEBACK=1 for all)."""
    # a file name that is not UTF-8 is printed with an escape, instead of a crash after hours of work
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show_warnings()
    # a command's numbers repeat: it waits for its kernels, and so do its processes (gapstone.loops.background)
    os.environ.setdefault("GAPSTONE_WAIT_FOR_KERNELS", "command")
    try:
        return int(app(standalone_mode=False) or 0)
    except BrokenPipeError:  # `gapstone … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _ended(error)


def _ended(error: Exception) -> int:
    """Say why a command ended; the exit code."""
    cause: BaseException = error
    if isinstance(error, _StoppedError) and error.__cause__ is not None:
        cause = error.__cause__
    if interrupts.asked() or isinstance(cause, KeyboardInterrupt):  # in the middle of an import it turns into others
        return _say(interrupts.said(cause), interrupts.code())
    wrong: Any = error  # typer's errors have other bases in other versions
    if type(error).__name__ == "NoArgsIsHelpError":  # `gapstone` alone
        wrong.show()
        return 2
    if hasattr(error, "format_message"):  # a wrong option
        return _say(f"{wrong.format_message()} See gapstone --help, or gapstone COMMAND --help.", 2)
    expected = isinstance(cause, ValueError | OSError | ImportError) or type(cause).__module__.startswith("gapstone")
    if not expected or os.environ.get("GAPSTONE_TRACEBACK"):
        import traceback

        print(lines("".join(traceback.format_exception(cause)).rstrip()), file=sys.stderr, flush=True)
        return 1
    more = getattr(cause, "more", "")  # a table of our own below the sentence
    text = sentence(cause) if isinstance(cause, OSError) else str(cause)
    return _say(text.removesuffix(more), 1, more)


def _say(text: str, code: int, more: str = "") -> int:
    """In one line: an error may quote what a file holds, which must not begin a line of its own."""
    print(f"gapstone: {one_line(text)}{more}", file=sys.stderr, flush=True)
    return code
