"""The commands that begin with a model: predict, explain, inspect, convert, export, serve."""

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
    Limit,
    Memory,
    Model,
    Native,
    OfHead,
    Weights,
    data_option,
    from_options,
    loading,
    not_empty,
    path_option,
    to_path,
)
from gapstone.console.formatting import display
from gapstone.console.options import results_folder


def predict(
    model: Model,
    images: Annotated[
        list[str], typer.Argument(parser=not_empty, metavar="IMAGES…", help="Image files, or folders of them.")
    ],
    as_json: Json = False,
    top: Annotated[int, typer.Option(help="Labels shown per image.")] = 3,
    native: Native = False,
    memory: Memory = "2GB",
    device: Device = "auto",
    weights: Weights = None,
    head: OfHead = None,
) -> None:
    """A model's predictions and their confidence. An image without one is listed with its reason (exit code 1)."""
    with loading():
        from gapstone.explaining.predict_files import predict_files
        from gapstone.models.of_comparison import model_of

    name = model_of(model, head)
    if not predict_files(name, images, as_json, top, device, native=native, weights=weights, memory=memory):
        raise typer.Exit(1)


def explain(
    context: typer.Context,
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            parser=not_empty, metavar="IMAGES…", help="Image files, folders of them, or quoted globs: 'new/**/*.jpg'."
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            help="These classes, by label or number: cat,dog (default: the most probable).", show_default=False
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            help="How many of the most probable classes per image (default: 3; of several labels all that are "
            "predicted, up to 8).",
            show_default=False,
        ),
    ] = None,
    all_classes: Annotated[
        bool, typer.Option("--all", help="Keep the maps of all classes; --top of them are shown.")
    ] = False,
    out: Annotated[Path | None, path_option("Where results go (default: runs/explain-MODEL).")] = None,
    html: Annotated[bool, typer.Option("--html", help="Also one page of all pictures that needs no network.")] = False,
    as_json: Json = False,
    drawings: Annotated[bool, typer.Option("--drawings/--no-drawings", help="A PNG per picture.")] = True,
    box: Annotated[
        str, typer.Option(help="The box around the evidence: a share of its maximum (the CAM paper's 0.2), otsu, none.")
    ] = "0.2",
    how: Annotated[
        Literal["smooth", "cells"], typer.Option(help="Between the cells' centres, or cell by cell.")
    ] = "smooth",
    alpha: Annotated[float, typer.Option(help="Opacity of the strongest evidence.")] = 0.88,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="Maps as they are (default: minus the mean of all classes' maps, which several labels do not need).",
        ),
    ] = False,
    native: Native = False,
    memory: Memory = "2GB",
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option()] = 8,
    weights: Weights = None,
    head: OfHead = None,
) -> None:
    """Show what a model looks at: what every place of a picture adds to each class's logit, from one forward pass.

    The same command again, after Ctrl-C or a crash, does only what is missing. An unreadable picture is listed with
    its reason (exit code 1).
    """
    with loading():
        from gapstone.explaining.explain_files import explain_files
        from gapstone.explaining.explain_request import ExplainRequest
        from gapstone.models.of_comparison import model_of

    request = from_options(ExplainRequest, context, model=model_of(model, head), images=tuple(images))
    if not explain_files(request, out or results_folder("explain", model)):
        raise typer.Exit(1)


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            parser=not_empty,
            metavar="MODEL|IMAGE",
            help="A file that `gapstone train` wrote, a network's name (vgg16), timm:NAME, hf:FOLDER, "
            "torchvision:NAME; or an image's file, of any size.",
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
    picture: Annotated[Path | None, path_option("Also draw it: .png or .svg.", metavar="FILE")] = None,
    head: OfHead = None,
) -> None:
    """Where a network's parameters and multiply-adds are, which sizes it takes, what another head would cost on it.

    Of an image: its size, levels, resolution, packing, and how much of it is missing.
    """
    with loading():
        from gapstone.inspecting.inspect_command import inspect_model
        from gapstone.inspecting.inspect_image import inspect_image, is_image
        from gapstone.models.of_comparison import model_of

    if is_image(model):
        of_networks = {"--size": size, "--depth": depth, "--channels": channels, "--picture": picture, "--head": head}
        if given := [option for option, value in of_networks.items() if value is not None]:
            raise ValueError(f"{', '.join(given)}: of networks only; {display(model)} is an image")
        inspect_image(model, as_json)
        return
    inspect_model(model_of(model, head), size, channels, as_json, depth, picture)


def convert(
    context: typer.Context,
    model: Model,
    head: Annotated[str, typer.Option(help="The new head, such as gap or fc:grid=7.")] = "gap",
    data: Annotated[str | None, data_option("Labelled images to fit it to, in any form of DATA.")] = None,
    out: Annotated[Path, typer.Option(parser=to_path, metavar="PATH", help="The new model's file.")] = Path(
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
    group: Group = None,
    group_pattern: GroupPattern = None,
    as_json: Json = False,
) -> None:
    """Another head on a trained model: one pass over the images, then solved, not trained; and what it cost.

    The new head and the old one are compared on test images. After Ctrl-C the same command goes on where it was.
    """
    with loading():
        from gapstone.converting.conversion import ConvertRequest
        from gapstone.converting.convert import convert as run
        from gapstone.models.of_comparison import model_of

    run(from_options(ConvertRequest, context, model=model_of(model)), as_json)


def export(
    model: Model,
    onnx: Annotated[Path | None, path_option("Write this ONNX file.")] = None,
    pt2: Annotated[Path | None, path_option("Write this torch.export file, read without gapstone.")] = None,
    maps: Annotated[bool, typer.Option("--maps/--no-maps", help="The maps of all classes as a second output.")] = True,
    opset: Annotated[int, typer.Option(help="Of the ONNX file: 18 to 23.")] = 18,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also NAME.int8.onnx, calibrated and measured on --data.")
    ] = False,
    data: Annotated[str | None, data_option("For --int8: labelled images, in any form of DATA.")] = None,
    weights: Weights = None,
    duplicates: DuplicatesOption = "group",
    duplicate_threshold: DuplicateThreshold = None,
    head: OfHead = None,
) -> None:
    """Write a model as ONNX or .pt2: logits and maps, any batch and size the head takes, checked before it says done.

    A file that is there already is replaced once the new one has passed.
    """
    with loading():
        from gapstone.export.export_model import export as run
        from gapstone.models.of_comparison import model_of

    run(
        model_of(model, head),
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


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            parser=not_empty,
            metavar="MODEL [MODEL2]",
            help="A file that `gapstone train` wrote, timm:NAME or hf:FOLDER; two are shown side by side.",
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
    head: OfHead = None,
) -> None:
    """A page where a picture is dropped in: its classes, and where in the picture each of them comes from."""
    with loading():
        from gapstone.models.of_comparison import model_of
        from gapstone.serve.run_server import serve as run

    run([model_of(model, head) for model in models], host, port, device, weights=weights)
