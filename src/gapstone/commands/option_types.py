"""The options that several commands share, each written once: type, help, and the check of what is typed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

Request = TypeVar("Request")


def from_options(kind: type[Request], context: typer.Context, **others: object) -> Request:
    """Make a dataclass of the command's options that are called as its fields are; `others` are its other fields."""
    names = {field.name for field in fields(kind)} - set(others)  # type: ignore[arg-type]
    return kind(**{name: context.params[name] for name in names}, **others)


def loading() -> AbstractContextManager[None]:
    """Show "Loading PyTorch" until the block ends."""
    from gapstone.console.progress import loading as bar  # rich's bars cost `gapstone --help` too much

    return bar()


def not_empty(name: str) -> str:
    """An empty name would mean the working folder (`--out "$UNSET"`)."""
    if not name.strip():
        raise typer.BadParameter("an empty name; write . to mean the working folder.")
    return name


def to_path(name: str | Path) -> Path:
    return Path(not_empty(str(name)))


def path_option(
    help: str, name: str | None = None, metavar: str = "PATH", callback: Callable[..., Any] | None = None
) -> Any:
    """An option that names a file or a folder; its default is said in its help, or there is none.

    A `callback` is called before all other options are looked at.
    """
    names, eager = (name,) if name else (), callback is not None
    return typer.Option(
        *names, parser=to_path, metavar=metavar, help=help, show_default=False, callback=callback, is_eager=eager
    )


def data_option(help: str) -> Any:
    """An option that names labelled images, in any form of DATA."""
    return typer.Option(parser=not_empty, metavar="DATA", help=help, show_default=False)


Data = Annotated[
    str,
    typer.Argument(
        parser=not_empty,
        metavar="DATA",
        help="digits (built in), a folder with a sub-folder per class, a folder with train/ val/ [test/], "
        "a CSV with path,label[,split], a folder of MNIST-style idx files, an .npz with images and labels, "
        "or .parquet files of images.",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(help="nin, nin:paper, vgg11, vgg16, resnet18, resnet50, timm:NAME, hf:FOLDER, … (default: nin for "
                 "small images; "
                 "for photos timm:tf_efficientnet_lite0, pretrained, if gapstone[weights] is installed, else resnet18)",
                 show_default=False),
]  # fmt: skip
Pretrained = Annotated[
    bool,
    typer.Option(
        "--pretrained",
        help="Weights that timm publishes, downloaded if need be; those on this machine are used anyway.",
    ),
]
Freeze = Annotated[
    bool,
    typer.Option(
        "--freeze",
        help="The backbone, with trained weights, is not trained: it looks at every image once, and every head is "
        "trained on what it saw. The default for photos, and wherever there are trained weights.",
    ),
]
Finetune = Annotated[bool, typer.Option("--finetune", help="Train a pretrained backbone further.")]
FromScratch = Annotated[bool, typer.Option("--from-scratch", help="Train the backbone from random weights.")]
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
    typer.Option(
        help="(default: 0.05, or 0.01 without a norm or pretrained; adamw 1e-3, 1e-4; frozen: tuned)",
        show_default=False,
    ),
]
WeightDecay = Annotated[
    float | None, typer.Option(help="Not on norms and biases (default: 5e-4; frozen: tuned).", show_default=False)
]
AugmentOption = Annotated[Literal["auto", "none"], typer.Option(help="auto: flips and crops for colour pictures.")]
BalanceOption = Annotated[
    Literal["none", "loss", "sampler"],
    typer.Option(
        help="Classes of unequal size: trained as they are; each class counts the same in the loss; or is drawn as "
        "often. Validation images then count likewise where they choose."
    ),
]
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
SplitShares = Annotated[
    str | None,
    typer.Option(
        metavar="TRAIN/VAL/TEST",
        help="Shares of the images, such as 0.7/0.15/0.15 (default: a fifth is tested, a tenth of the others "
        "validates), where DATA does not say it.",
        show_default=False,
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        help="Epochs without a better validation accuracy after which the training of a whole network ends "
        "(default: 10).",
        show_default=False,
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column of a CSV (or array of an .npz) that says which images belong together, such as patient: they "
        "stay on one side of every split, and verdicts count groups instead of images.",
        show_default=False,
    ),
]
SampleWeight = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column of a CSV (or array of an .npz) that says how much an image counts in training: of weight 2 it "
        "is drawn twice as often as of 1, of 0 never. Validation and test images count the same.",
        show_default=False,
    ),
]
GroupPattern = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help=r"The same from the images' paths below DATA: 'patient_(\d+)'.",
        show_default=False,
    ),
]
MultiLabel = Annotated[
    bool,
    typer.Option(
        "--multi-label",
        help="An image may have several labels, or none, where DATA does not show it: a file linked or copied into "
        "several class folders, or in several rows of a table, is one image with all of them.",
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        parser=not_empty,
        metavar="MODEL",
        help="A file that `gapstone train` wrote, the folder of a `compare`, timm:NAME (its weights are fetched), "
        "hf:FOLDER (a classifier of transformers), or a network's name with --weights.",
    ),
]
OfHead = Annotated[
    str | None,
    typer.Option(
        "--head",
        help="Of a folder of `compare`: the head whose model is meant (default: the best).",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    path_option(
        "A file with the weights for timm:NAME (instead of the hub) or for a network's name, vgg16: a state_dict as "
        "safetensors or by torch.save (tensors alone are read)."
    ),
]
StartWeights = Annotated[
    Path | None,
    path_option(
        "Trained weights the backbone starts from: a model of `gapstone train`, or for --backbone a state_dict: "
        "safetensors, .pth, .pt, .ckpt, .bin.",
        metavar="FILE",
    ),
]
Memory = Annotated[
    str, typer.Option(help="That an image of more than 4096² px may take with --native: it is streamed.")
]
Native = Annotated[
    bool,
    typer.Option(
        "--native/--resize", help="Every picture as it is, neither cut nor resized; or as the model was trained."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output instead of a table.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
