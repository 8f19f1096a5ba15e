"""`gs.compare`: the same backbone under several heads, on the user's own images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gapstone.comparing.compare_request import HEADS, CompareRequest
from gapstone.comparing.run_comparison import compare as run
from gapstone.console.options import results_folder
from gapstone.data.python_objects import described
from gapstone.heads.own_heads import OwnHeadLike
from gapstone.library.comparison import Comparison
from gapstone.library.given_arguments import Backbone, Data, Size, as_typed, find_backbone, given_data, given_path
from gapstone.library.listeners import Callbacks
from gapstone.library.own_head import name_heads
from gapstone.library.python_words import console_of, errors_in_python
from gapstone.statistics.own_metric import Function
from gapstone.trackers import EpochEnded, Tracker, TrialEnded, trackers_of
from gapstone.training.training_data import TrainOptions


def compare(
    data: Data,
    *,
    backbone: Backbone | None = None,
    heads: Iterable[str | Mapping[str, OwnHeadLike]] = HEADS,
    seeds: int = 5,
    folds: int | None = None,
    baseline: str | None = None,
    metric: str | Function | None = None,
    groups: str | None = None,
    group_pattern: str | None = None,
    sample_weight: str | None = None,
    multi_label: bool = False,
    out: str | Path | None = None,
    progress: bool = True,
    on_epoch: Callable[[EpochEnded], object] | None = None,
    on_trial: Callable[[TrialEnded], object] | None = None,
    trackers: Sequence[Tracker | str] = (),
    freeze: bool = False,
    finetune: bool = False,
    from_scratch: bool = False,
    pretrained: bool = False,
    weights: str | Path | None = None,
    at: str | None = None,
    boxes: str | Path | None = None,
    curve: str | Sequence[int | str] | None = None,
    keep: Literal["best", "all", "none"] = "best",
    quick: bool = False,
    tune: bool = False,
    size: Size | None = None,
    limit: int | None = None,
    epochs: int | None = None,
    batch_size: int = 64,
    optimizer: Literal["sgd", "adamw"] = "sgd",
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    augment: Literal["auto", "none"] = "auto",
    augmented: Any = None,
    balance: Literal["none", "loss", "sampler"] = "none",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    duplicates: Literal["group", "drop", "keep"] = "group",
    duplicate_threshold: float | None = None,
    split: str | Sequence[float] | None = None,
    patience: int | None = None,
    margin: float | None = None,
    workers: int | None = None,
) -> Comparison:
    """Train one backbone under several heads with several seeds, and say which head is better, and how surely.

    Examples:
        >>> result = gs.compare("flowers/", heads=["gap", "gem:p=learned", "fc"], out="runs/flowers")
        >>> result.verdict
        'No head differs from gap …'
        >>> result["gap"].accuracy
        94.1 % (92.3 to 95.6)
        >>> gs.compare("flowers/", backbone=lambda: MyNet(width=64), metric="balanced_accuracy")

    The same call again, after Ctrl-C or a crash, trains only what is missing, and gives the same numbers as the
    command `gapstone compare` with the same options. It needs no `if __name__ == "__main__"`: processes that train do
    not run the script again.

    Args:
        data: `digits`, a folder with a sub-folder of images per class, a CSV, an .npz, …, as the command's DATA; or
            arrays `(images, labels)`, a DataFrame with the columns `path,label`, a Dataset of torch, torchvision or
            Hugging Face; or `{"train": …, "test": …}` of two or three of them (docs/data.md).
        backbone: a name (`resnet18`, `timm:NAME`, `hf:FOLDER`); an nn.Module, whose head is found and cut off and
            which begins each trial with the weights that it has; or a function that builds one, which gives each trial
            random weights of its own. None: chosen by the images; of photos, a pretrained network that is not trained.
        heads: specs, such as `gap`, `gem:p=learned`, `fc:512:dropout=0.5`; and of your own,
            `{"mine": lambda channels, classes, size: MyHead(channels, classes)}`: an nn.Module that turns maps (N, C,
            h, w) into logits (N, classes), or a function that builds one for maps of `size` (h, w).
        seeds: trials of each head.
        folds: k-fold cross-validation instead of seeds and one test split.
        baseline: the head that all others are compared with; None: the first.
        metric: what decides: `accuracy`, `balanced_accuracy`, `auroc`, … or a function of labels (n,) and
            probabilities (n, K). None: accuracy, and balanced accuracy of very unequal classes.
        groups: the column that says which images belong together, such as those of one patient.
        group_pattern: a regular expression that finds the same in the images' paths.
        sample_weight: the column (or array) that says how much an image counts in training: of weight 2 it is drawn
            twice as often as of 1, of 0 never. Validation and test images count the same.
        multi_label: an image may have several labels, also where nothing in `data` shows it.
        out: the folder of the results; None: `runs/compare-NAME`.
        progress: show bars and lines about the work; errors are raised in any case.
        on_epoch: called after each epoch of a network that is trained whole, with an `EpochEnded`.
        on_trial: called after each trial, with a `TrialEnded`. An error in either function ends the comparison.
        trackers: of experiments, such as `gs.trackers.TensorBoard("runs/tb")`; a run of each trial, and the report.
        freeze: do not train the backbone, which has trained weights; the default where they are known to be trained.
        finetune: train a backbone further that has trained weights.
        from_scratch: random weights, even where trained ones are on this machine.
        pretrained: weights that timm publishes, downloaded if need be.
        weights: a file of weights that the backbone starts from.
        at: of an nn.Module, the name of the module whose output is the last map; None: it is found.
        boxes: where the objects are, as a table, COCO's instances.json or a folder of Pascal VOC's .xml files;
            measures where each head looks.
        curve: numbers of labelled images of each class, such as `[5, 10, 30, "all"]`, on a frozen backbone.
        keep: which trained models are kept in `out`: of each head its best trial, those of all trials, or none.
        quick: the verdict alone: no image is moved or resized, and heads are not timed.
        tune: choose learning rate and weight decay of networks that are trained whole, in each trial.
        size: what the network sees, in px: 96 or (96, 128), height first. None: chosen from the images.
        limit: at most so many training and so many test images.
        epochs: None: 10 to 40, fewer for more images.
        batch_size: images in a step.
        optimizer: `sgd` or `adamw`.
        learning_rate: None: by network and optimizer; tuned in each trial of a frozen backbone.
        weight_decay: not on norms and biases; None: 5e-4, or tuned as the learning rate.
        augment: `auto`: flips and crops of colour pictures.
        augmented: the Dataset that `data` is, or its train part, with random transforms (`torchvision.transforms.v2`,
            albumentations, your own). Training draws from it anew in each epoch, and `augment` is off (docs/data.md).
        balance: classes of unequal size: trained as they are, counted the same in the loss, or drawn as often.
        precision: `auto`: what measures faster.
        device: `auto`: a GPU if there is one.
        duplicates: pictures that are there more than once: kept on one side of the split, one of each used, or kept.
        duplicate_threshold: likeness (correlation, 0.8 to 1) from which two pictures are one.
        split: shares of the images to train on, to validate and to test, such as (0.7, 0.15, 0.15); None: 20 % are
            tested, and 10 % of the others validate. `data` must not say it itself.
        patience: epochs without a better validation accuracy after which the training of a whole network ends; None:
            10.
        margin: differences of the metric up to it do not matter, in its unit as it is shown; None: 0.5 percentage
            points. Decide it before you see results: another margin is another look at the test images.
        workers: trials at a time; None: one per core, one on a GPU.

    Returns:
        The results. They stay in `out`: `gs.Comparison.open(out)`.

    Raises:
        ValueError: arguments, data or a folder that do not fit together; says what to do.
        TypeError: `backbone` is no network.
        TrainingError: every trial failed.
    """
    folder = Path(out) if out is not None else results_folder("compare", described(data))
    console = console_of(progress)
    with errors_in_python():
        specs, own = name_heads(heads)
        name, code = find_backbone(backbone, at, specs, own, console)
        given = given_data(data)
        options = TrainOptions(
            given, name, pretrained, from_scratch, as_typed(size, "x"), limit, epochs, batch_size, optimizer,
            learning_rate, weight_decay, augment, precision, device, balance, duplicates, duplicate_threshold, groups,
            group_pattern, multi_label, as_typed(split, "/"),
            patience, augmented, sample_weight,
        )  # fmt: skip
        request = CompareRequest(
            options, specs, seeds, folds, baseline, metric, workers, given_path(boxes), given_path(weights), freeze,
            as_typed(curve, ","), finetune, quick,
            user_code=code, keep=keep, tune=tune, margin=margin,
        )  # fmt: skip
        run(request, folder, console, "", Callbacks(on_epoch, on_trial, trackers_of(trackers)))
    return Comparison.open(folder)
