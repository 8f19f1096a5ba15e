"""fit_head: put another head on a trained model in seconds: one pass over the images, then a convex problem."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import nn

from gapstone.data.split import carve_validation
from gapstone.fitting.finetune import Finetuned, LastStage, finetune
from gapstone.fitting.fitting_data import Batches, Data, InMemory
from gapstone.fitting.head_inputs import HeadInputs, head_inputs, linear_layer
from gapstone.fitting.linear_map import Linear, check_features, check_labels
from gapstone.fitting.logistic import logistic, nll
from gapstone.fitting.ridge import Ridge
from gapstone.heads import Head, parse
from gapstone.heads.reads import MAPS
from gapstone.models.classifier import Classifier
from gapstone.statistics.labels import indicators, is_multi_label
from gapstone.swapping.swap_report import REPORT_ATTRIBUTE, Swapped, count, head_of
from gapstone.training.training_data import StartProgress

Method = Literal["logistic", "ridge", "distil"]
METHODS: tuple[Method, ...] = get_args(Method)
HELD_OUT = 0.1
"""Share of each class that is held out to choose λ and to stop fine-tuning, if no held-out images are given."""

TARGET_ROWS = 10_000
"""Images whose one-hot targets are in memory at a time."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model with its new head, and how the head was fitted."""

    model: nn.Module
    penalty: float
    """λ of the fit."""
    images: int
    held_out: int
    tuned: Finetuned | None
    """The course of fine-tuning; None without."""


def fit_head(
    model: nn.Module,
    data: Batches,
    head: str | None = None,
    method: Method = "logistic",
    *,
    validation: Batches | None = None,
    labels: Sequence[str] | None = None,
    finetune: int = 0,
    seed: int = 0,
) -> nn.Module:
    """Fit a head to `data` and return a copy of `model` with it; all other weights stay, unless fine-tuned.

    Examples:
        >>> data = images, torch.arange(16) % 2  # or a DataLoader
        >>> gs.fit_head(model, data, "gmp").head.spec  # seconds: nothing is trained
        'gmp'
        >>> gs.fit_head(model, data, "gap", finetune=1).head.spec  # then the last stage, from cached maps
        'gap'
        >>> gs.fit_head(model, data, labels=("cold", "warm")).labels  # new classes, the same kind of head
        ('cold', 'warm')

    A new head alone costs accuracy if the features were trained for another one. Measured with a small NIN, from
    `fc:256` to `gap`: CIFAR-10 falls from 63.2 % to 53.1 %, or 59.7 % after 10 epochs of fine-tuning and 61.6 % after
    30; MNIST falls from 97.7 % to 96.0 %, or 97.2 % after 10 epochs. `gapstone convert` measures this cost.

    Args:
        model: a `gs.Classifier`, or any module whose head is a `gs.Head` (`gs.swap_head`).
        data: batches (images, labels): a DataLoader, a list, or the two tensors; images as the model takes them, labels
            as its logits are numbered, or of several labels per image (n, K) of 0 and 1: then each class gets a
            logistic regression of its own, and a Classifier becomes a `multi_label` one. A batch may be a list of
            images (C, H, W) of different sizes; none is resized. Passed over once, in eval mode, on the model's device.
        head: such as `gap`, `gem:p=4`, `fc:grid=2`; by default the model's. It must end in one linear layer.
        method: `logistic` regression; `ridge` regression on the labels, much faster for thousands of classes; `distil`,
            ridge regression on the old head's logits, which needs no correct labels.
        validation: held-out images, as `data`; λ and the best epoch are chosen on them. By default a tenth of each
            class of `data`, drawn by `seed`.
        labels: names of the classes, if not the model's; not with `distil`, which imitates the model's logits.
        finetune: epochs to train the last stage and the head, starting from the fitted head; the result is never worse
            on the held-out images. For a Classifier. Keeps the inputs of that stage in memory, in half precision.
        seed: of the held-out tenth and of the order of fine-tuning.

    Returns:
        The copy, in eval mode.

    Raises:
        ValueError: a head that is not pool + linear, labels that do not fit, a class without images, features that are
            not finite.
        TrainingError: fine-tuning failed.
    """
    device = next(model.parameters()).device
    held_out = None if validation is None else InMemory(validation, device)
    return fit(
        model, InMemory(data, device), head, method, held_out=held_out, labels=labels, finetune=finetune, seed=seed
    ).model


def fit(
    model: nn.Module,
    data: Data,
    head: str | None = None,
    method: Method = "logistic",
    *,
    held_out: Data | None = None,
    labels: Sequence[str] | None = None,
    finetune: int = 0,
    seed: int = 0,
    start_progress: StartProgress | None = None,
) -> Fitted:
    """As `fit_head`, for `Data`; also returns how the head was fitted."""
    path, old = head_of(model)
    spec = str(parse(head or old.spec))
    names = _class_names(model, old, labels)
    check_fit_request(spec, method, finetune)
    if finetune and not isinstance(model, Classifier):
        raise ValueError(f"fit_head(finetune={finetune}): what the last stage is, is known of a gs.Classifier only.")
    if finetune:
        cast(Classifier, model).features.last_modules()  # raises for a network without such a stage
    # only a Classifier has class names; of other modules only their number is known
    if method == "distil" and (names != model.labels if isinstance(model, Classifier) else len(names) != old.classes):
        raise ValueError(
            f"method 'distil' imitates the model's logits, one for each of its {old.classes} classes in their order; "
            f"labels= has other names ({', '.join(names[:3])}{', …' if len(names) > 3 else ''}): leave it out, or take "
            f"method='logistic'."
        )
    new = _with_new_head(model, path, old, spec, names)
    new_head = head_of(new)[1]

    outputs = {"logits": method == "distil", "stage_inputs": finetune > 0}
    train = head_inputs(model, new_head, data, **outputs)
    check_features(train.vectors)
    check_labels(train.labels, names, every=method != "distil")
    if isinstance(new, Classifier) and method != "distil":
        new.multi_label = is_multi_label(train.labels)
    if held_out is None:
        rows = np.arange(len(train.labels))
        rest, tenth = carve_validation(rows, train.labels, rows, seed, HELD_OUT)
        train, other = train.take(rest), train.take(tenth)
    else:
        other = head_inputs(model, new_head, held_out, **outputs)
        check_features(other.vectors)
        check_labels(other.labels, names, every=False)
        if train.labels.ndim != other.labels.ndim:
            raise ValueError(
                f"validation has labels {other.labels.shape} and data {train.labels.shape}: give both one class for "
                f"each image, or both (n, K) of 0 and 1."
            )
    linear = _solve(train, other, method, len(names), start_progress)
    layer = linear_layer(new_head)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(linear.weight))
        layer.bias.copy_(torch.from_numpy(linear.bias))
    tuned = None
    if finetune:
        assert isinstance(new, Classifier)
        tuned = _finetune(new, train, other, finetune, seed, start_progress)
    return Fitted(new, linear.penalty, len(train.labels), len(other.labels), tuned)


def check_fit_request(spec: str, method: str, epochs: int) -> None:
    """Raises ValueError for arguments that are wrong whatever the images are, before they are passed over."""
    parsed = parse(spec)
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected {', '.join(METHODS)}.")
    if epochs < 0:
        raise ValueError(f"finetune {epochs}: expected a number of epochs, 0 for none.")
    why = ""
    if parsed.recipe.maps:
        why = "it has a ReLU between its linear layer and its pool"
    elif parsed.reads != MAPS:
        why = f"it reads {parsed.reads.beyond}, and what is fitted reads the last map"
    elif parsed.recipe.pools == ("attention",):
        why = "its queries have to be trained"
    elif parsed.normed:
        why = "its norm is trained (a fit scales what it reads by itself: leave norm out)"
    elif parsed.hidden:
        why = f"it has hidden layers ({','.join(map(str, parsed.hidden))})"
    if why:
        raise ValueError(
            f"head {spec!r} has no closed form: {why}. Fit one that ends in a single linear layer "
            f"(gap, gmp, gem, lse, avgmax, catavgmax, fc, fc:grid=2), or train this one (gapstone train)."
        )


def _class_names(model: nn.Module, old: Head, labels: Sequence[str] | None) -> tuple[str, ...]:
    if labels is not None:
        if isinstance(labels, str) or len(labels) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"labels={str(labels)[:60]}: expected at least two different names.")
        return tuple(labels)
    return model.labels if isinstance(model, Classifier) else tuple(f"class {k}" for k in range(old.classes))


def _with_new_head(model: nn.Module, path: str, old: Head, spec: str, names: tuple[str, ...]) -> nn.Module:
    """A copy in eval mode, with a new head whose weights are still random; features and head keep their dtypes."""
    device, dtype = next(model.parameters()).device, next(old.parameters()).dtype
    # initialising the weights must not advance the caller's random generator
    with torch.random.fork_rng(devices=[]):
        if isinstance(model, Classifier):
            arguments = model.backbone, spec, names, model.preprocessing
            classifier = Classifier(*arguments, config=model.config, multi_label=model.multi_label)
            classifier.trained_on = model.trained_on and model.trained_on.incomplete  # by what it will be fitted to
            old_parameters = dict(model.features.named_parameters())
            classifier.features.load_state_dict(model.features.state_dict())
            classifier.features.to(next(iter(old_parameters.values())).dtype)
            classifier.head.to(dtype)
            for name, parameter in classifier.features.named_parameters():
                parameter.requires_grad_(old_parameters[name].requires_grad)
            return classifier.to(device).eval()
        new = copy.deepcopy(model)
        new.set_submodule(path, Head(spec, old.channels, len(names), old.size).to(dtype))
    report = vars(new).get(REPORT_ATTRIBUTE)
    if isinstance(report, Swapped):
        setattr(new, REPORT_ATTRIBUTE, replace(report, head=spec, classes=len(names), after=count(new)))
    return new.to(device).eval()


def _solve(
    train: HeadInputs, other: HeadInputs, method: Method, classes: int, start_progress: StartProgress | None
) -> Linear:
    if method == "logistic":
        progress = start_progress("Logistic regression") if start_progress else None
        return logistic(train.vectors, train.labels, (other.vectors, other.labels), progress)
    if method == "distil":
        assert train.logits is not None
        return Ridge.of(train.vectors, train.logits).solve()
    sums = Ridge.empty(train.vectors.shape[1], classes)
    for first in range(0, len(train.labels), TARGET_ROWS):  # the one-hot targets of all images may not fit into memory
        block = slice(first, first + TARGET_ROWS)
        sums = sums + Ridge.of(train.vectors[block], indicators(train.labels[block], classes))
    linear = sums.solve()
    held_out = other if len(other.labels) else train
    scores = linear(held_out.vectors)
    # a score of 0.5 says as much for a class as against it, where classes do not compete
    middle = 0.5 if is_multi_label(train.labels) else 0.0
    factor = _sharpness(scores - middle, held_out.labels)
    return Linear(linear.weight * factor, (linear.bias - middle) * factor, linear.penalty)


def _sharpness(scores: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """The factor with the least NLL: scores of regression on 0 and 1 rank well, but are too unconfident as logits."""

    def mean_nll(log_factor: float) -> float:
        return nll(scores * np.exp(log_factor), labels) / len(labels)

    return float(np.exp(minimize_scalar(mean_nll, bounds=(0.0, 5.0), method="bounded").x))


def _finetune(
    model: Classifier,
    train: HeadInputs,
    other: HeadInputs,
    epochs: int,
    seed: int,
    start_progress: StartProgress | None,
) -> Finetuned:
    assert train.stage_inputs is not None
    assert other.stage_inputs is not None
    if not len(other.labels):
        raise ValueError("fine-tuning needs held-out images to stop by: give validation=, or more images per class.")
    progress: Callable[..., Any] | None = start_progress("Fine-tuning the last stage") if start_progress else None
    dtypes = [(part, next(part.parameters()).dtype) for part in (model.features, model.head)]
    model.float()  # small steps vanish in half precision
    stages = LastStage(train.stage_inputs, train.labels), LastStage(other.stage_inputs, other.labels)
    tuned = finetune(model, *stages, epochs, seed, progress)
    for part, dtype in dtypes:
        part.to(dtype)
    return tuned
