"""`gs.train`: one classifier, trained on the user's own images."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.trials import EpochNumbers, Trial
from gapstone.evaluating.train_model import train_model
from gapstone.heads.own_heads import OwnHeadLike
from gapstone.library.given_arguments import Backbone, Data, Size, as_typed, find_backbone, given_data, given_path
from gapstone.library.listeners import epoch_event
from gapstone.library.own_head import name_heads
from gapstone.library.python_words import console_of, errors_in_python
from gapstone.models.classifier import Classifier
from gapstone.trackers import EpochEnded
from gapstone.training.training_data import TrainOptions


def train(
    data: Data,
    head: str | Mapping[str, OwnHeadLike] = "gap",
    *,
    backbone: Backbone | None = None,
    seed: int = 0,
    groups: str | None = None,
    group_pattern: str | None = None,
    sample_weight: str | None = None,
    multi_label: bool = False,
    out: str | Path | None = None,
    report: str | Path | None = None,
    progress: bool = True,
    on_epoch: Callable[[EpochEnded], object] | None = None,
    freeze: bool = False,
    finetune: bool = False,
    from_scratch: bool = False,
    pretrained: bool = False,
    weights: str | Path | None = None,
    at: str | None = None,
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
) -> Classifier:
    """Train one classifier; with photos, and wherever there are trained weights, the head alone.

    Examples:
        >>> model = gs.train("photos/", "gem:p=learned", out="photos.safetensors")
        >>> model.predict("cat.jpg")
        tensor([[…]])
        >>> gs.train("photos/", backbone=lambda: MyNet(width=64), report="runs/mine")

    It is one trial of `gs.compare`, with the same numbers; the images are checked, split and decoded as there. What
    `gs.evaluate` says of a model is said of the test images. Which head is better, and how surely, one training does
    not say: `gs.compare` does.

    Args:
        data: labelled images, as `gs.compare` takes them.
        head: a spec, such as `gap`, `gem:p=learned`, `fc:512:dropout=0.5`, or one of your own, `{"mine": MyHead}`.
        backbone: a name, an nn.Module, or a function that builds one, as for `gs.compare`.
        seed: of weights, batches and augmentation.
        groups: the column that says which images belong together, such as those of one patient.
        group_pattern: a regular expression that finds the same in the images' paths.
        sample_weight: the column (or array) that says how much an image counts in training: of weight 2 it is drawn
            twice as often as of 1, of 0 never. Validation and test images count the same.
        multi_label: an image may have several labels, also where nothing in `data` shows it.
        out: the model's file; None: it is not written.
        report: a folder for a page about the test images, which `gs.Evaluation.open` opens, too.
        progress: show bars, lines and the metrics of the test images; errors are raised in any case.
        on_epoch: called after each epoch with an `EpochEnded`; an error in it ends the training.
        freeze: do not train the backbone, which has trained weights; the default where they are known to be trained.
        finetune: train a backbone further that has trained weights.
        from_scratch: random weights, even where trained ones are on this machine.
        pretrained: weights that timm publishes, downloaded if need be.
        weights: a file of weights that the backbone starts from.
        at: of an nn.Module, the name of the module whose output is the last map; None: it is found.
        size: what the network sees, in px: 96 or (96, 128), height first. None: chosen from the images.
        limit: at most so many training and so many test images.
        epochs: None: 10 to 40, fewer for more images.
        batch_size: images in a step.
        optimizer: `sgd` or `adamw`.
        learning_rate: None: by network and optimizer; of a frozen backbone validation images choose.
        weight_decay: not on norms and biases; None: 5e-4, or chosen as the learning rate.
        augment: `auto`: flips and crops of colour pictures.
        augmented: the Dataset that `data` is, or its train part, with random transforms of your own.
        balance: classes of unequal size: trained as they are, counted the same in the loss, or drawn as often.
        precision: `auto`: what measures faster.
        device: `auto`: a GPU if there is one.
        duplicates: pictures that are there more than once: kept on one side of the split, one of each used, or kept.
        duplicate_threshold: likeness (correlation, 0.8 to 1) from which two pictures are one.
        split: shares of the images to train on, to validate and to test, such as (0.7, 0.15, 0.15).
        patience: epochs without a better validation accuracy after which training ends; None: 10.

    Returns:
        The classifier: to predict, explain, export and serve.

    Raises:
        ValueError: arguments, data or files that do not fit together; says what to do.
        TypeError: `backbone` is no network.
        TrainingError: the loss is not finite.
    """
    console = console_of(progress)
    with errors_in_python():
        (spec,), own = name_heads([_one(head)])
        name, code = find_backbone(backbone, at, (spec,), own, console)
        given = given_data(data)
        options = TrainOptions(
            given, name, pretrained, from_scratch, as_typed(size, "x"), limit, epochs, batch_size, optimizer,
            learning_rate, weight_decay, augment, precision, device, balance, duplicates, duplicate_threshold, groups,
            group_pattern, multi_label, as_typed(split, "/"), patience, augmented,
            sample_weight,
        )  # fmt: skip
        request = CompareRequest(
            options, (spec,), 1, weights=given_path(weights), freeze=freeze, finetune=finetune, quick=True,
            user_code=code,
        )  # fmt: skip
        heard = None if on_epoch is None else _heard_by(on_epoch)
        return train_model(request, seed, given_path(out), console, given_path(report), on_epoch=heard)


def _one(head: Any) -> str | Mapping[str, OwnHeadLike]:
    if isinstance(head, Mapping) and len(head) != 1:
        raise ValueError(f"head: {len(head)} heads; gs.train trains one, and gs.compare compares several.")
    if not isinstance(head, str | Mapping):
        raise TypeError(f"head: {type(head).__name__} has no name: give it one, {{'mine': {type(head).__name__}}}")
    return head


def _heard_by(on_epoch: Callable[[EpochEnded], object]) -> Callable[[Trial, int, int, EpochNumbers], object]:
    return lambda trial, epoch, epochs, numbers: on_epoch(epoch_event(trial, epoch, epochs, numbers))
