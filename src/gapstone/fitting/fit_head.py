"""fit_head: another head on a trained model, in seconds: one pass over the images, then a solved problem."""

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
from gapstone.fitting.head_inputs import HeadInputs, head_inputs
from gapstone.fitting.linear_map import Linear, check, finite
from gapstone.fitting.logistic import logistic
from gapstone.fitting.ridge import Ridge
from gapstone.heads import Head, parse
from gapstone.heads.recipes import RECIPES
from gapstone.models.classifier import Classifier
from gapstone.swapping.swap_report import KEPT, Swapped, count, head_of
from gapstone.training.training_data import StartProgress

Method = Literal["logistic", "ridge", "distil"]
METHODS: tuple[Method, ...] = get_args(Method)
HELD_OUT = 0.1
"""The share of each class that λ is chosen on, and fine-tuning stopped by, where no held-out images are given."""

SOME = 10_000
"""Images whose targets are written out at a time."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model with its new head, and how that was found."""

    model: nn.Module
    penalty: float
    """The λ of the closed form."""
    images: int
    held_out: int
    tuned: Finetuned | None
    """What fine-tuning did, where it was asked for."""


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
    """A copy of `model` whose head was fitted to `data`: all other weights as they were, unless fine-tuned.

    Examples:
        >>> data = images, torch.arange(16) % 2  # or a DataLoader
        >>> gs.fit_head(model, data, "gmp").head.spec  # seconds: nothing is trained
        'gmp'
        >>> gs.fit_head(model, data, "gap", finetune=1).head.spec  # then the last stage, from cached maps
        'gap'
        >>> gs.fit_head(model, data, labels=("cold", "warm")).labels  # new classes, the same kind of head
        ('cold', 'warm')

    A new head alone costs accuracy where the features were trained for another one. Measured, small NIN, `fc:256` to
    `gap`: 63.2 % to 53.1 % on CIFAR-10, to 59.7 % after 10 epochs of fine-tuning and 61.6 % after 30; 97.7 % to 96.0 %
    and 97.2 % (10 epochs) on MNIST. So measure it, as `gapstone convert` does.

    Args:
        model: a `gs.Classifier`, or any module whose head is a `gs.Head` (`gs.swap_head`).
        data: batches (images, labels): a DataLoader, a list, or the two tensors; images as the model takes them, labels
            as its logits are numbered. A batch may be a list of images (C, H, W) of different sizes, each seen as it
            is. Passed over once, in eval mode, on the model's device.
        head: such as `gap`, `gem:p=4`, `fc:grid=2`; by default the one it has. It must end in one linear layer.
        method: `logistic` regression; `ridge` regression on the labels, much faster for thousands of classes; `distil`,
            ridge regression on the old head's logits, which needs no labels to be right.
        validation: held-out images, as `data`; λ is chosen on them, and the best epoch. By default a tenth of each
            class of `data`, drawn by `seed`.
        labels: names of the classes, where they are not the model's; not with `distil`, whose logits are the model's.
        finetune: epochs that the last stage and the head are trained, beginning at the closed form; never worse on the
            held-out images than that. For a Classifier. Keeps what the stage is given in memory, in half precision.
        seed: of what is drawn: the held-out tenth, the order of fine-tuning.

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
    """As `fit_head`, for `Data`, and it tells how the head was found."""
    path, old = head_of(model)
    spec = str(parse(head or old.spec))
    names = names_of(model, old, labels)
    fit_request(spec, method, finetune)
    if finetune and not isinstance(model, Classifier):
        raise ValueError(f"fit_head(finetune={finetune}): what the last stage is, is known of a gs.Classifier only.")
    if finetune:
        cast(Classifier, model).features.last_modules()  # a network without such a stage says so here
    # of other modules than a Classifier the names are not known, only how many
    if method == "distil" and (names != model.labels if isinstance(model, Classifier) else len(names) != old.classes):
        raise ValueError(
            f"method 'distil' imitates the model's logits, one for each of its {old.classes} classes in their order; "
            f"labels= has other names ({', '.join(names[:3])}{', …' if len(names) > 3 else ''}): leave it out, or take "
            f"method='logistic'."
        )
    new = with_head(model, path, old, spec, names)
    new_head = head_of(new)[1]

    wanted = {"logits": method == "distil", "between": finetune > 0}
    train = head_inputs(model, new_head, data, **wanted)
    finite(train.vectors)
    check(train.labels, names, every=method != "distil")
    if held_out is None:
        train, other = _carve(train, seed)
    else:
        other = head_inputs(model, new_head, held_out, **wanted)
        finite(other.vectors)
        check(other.labels, names, every=False)
    linear = _solve(train, other, method, len(names), start_progress)
    put(new_head, linear)
    tuned = None
    if finetune:
        assert isinstance(new, Classifier)
        tuned = _tune(new, train, other, finetune, seed, start_progress)
    return Fitted(new, linear.penalty, len(train.labels), len(other.labels), tuned)


def fit_request(spec: str, method: str, epochs: int) -> None:
    """Refuse at once, in words, what no pass over the images could mend. Raises ValueError."""
    parsed = parse(spec)
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected {', '.join(METHODS)}.")
    if epochs < 0:
        raise ValueError(f"finetune {epochs}: expected a number of epochs, 0 for none.")
    why = ""
    if RECIPES[parsed.name].maps:
        why = "it has a ReLU between its linear layer and its pool"
    elif parsed.hidden:
        why = f"it has hidden layers ({','.join(map(str, parsed.hidden))})"
    if why:
        raise ValueError(
            f"head {spec!r} has no closed form: {why}. Fit one that ends in a single linear layer "
            f"(gap, gmp, gem, lse, avgmax, catavgmax, fc, fc:grid=2), or train this one (gapstone train)."
        )


def names_of(model: nn.Module, old: Head, labels: Sequence[str] | None) -> tuple[str, ...]:
    if labels is not None:
        if isinstance(labels, str) or len(labels) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"labels={str(labels)[:60]}: expected at least two different names.")
        return tuple(labels)
    return model.labels if isinstance(model, Classifier) else tuple(f"class {k}" for k in range(old.classes))


def with_head(model: nn.Module, path: str, old: Head, spec: str, names: tuple[str, ...]) -> nn.Module:
    """A copy with a head of that kind, in eval mode, its weights yet to be found; its parts of the dtypes they had."""
    device, kind = next(model.parameters()).device, next(old.parameters()).dtype
    # a new network draws its first weights: not at the cost of the caller's generator
    with torch.random.fork_rng(devices=[]):
        if isinstance(model, Classifier):
            made = Classifier(model.backbone, spec, names, model.preprocessing)
            given = dict(model.features.named_parameters())
            made.features.load_state_dict(model.features.state_dict())
            made.features.to(next(iter(given.values())).dtype)
            made.head.to(kind)
            for name, parameter in made.features.named_parameters():
                parameter.requires_grad_(given[name].requires_grad)
            return made.to(device).eval()
        new = copy.deepcopy(model)
        parent, _, last = path.rpartition(".")
        setattr(new.get_submodule(parent), last, Head(spec, old.channels, len(names), old.size).to(kind))
    report = vars(new).get(KEPT)
    if isinstance(report, Swapped):
        setattr(new, KEPT, replace(report, head=spec, classes=len(names), after=count(new)))
    return new.to(device).eval()


def _carve(train: HeadInputs, seed: int) -> tuple[HeadInputs, HeadInputs]:
    rows = np.arange(len(train.labels))
    rest, other = carve_validation(rows, train.labels, rows, seed, HELD_OUT)
    return train.some(rest), train.some(other)


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
    for first in range(0, len(train.labels), SOME):  # a 1 for each label: all of them at once may not fit into memory
        some = slice(first, first + SOME)
        sums = sums + Ridge.of(train.vectors[some], np.eye(classes)[train.labels[some]])
    found = sums.solve()
    judged = other if len(other.labels) else train
    factor = sharpness(found(judged.vectors), judged.labels)
    return Linear(found.weight * factor, found.bias * factor, found.penalty)


def sharpness(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The factor that makes scores into logits: regression on 0 and 1 is right about the order, and far too unsure."""
    rows = np.arange(len(labels))

    def nll(log_factor: float) -> float:
        logits = scores * np.exp(log_factor)
        logits = logits - logits.max(1, keepdims=True)
        return float((np.log(np.exp(logits).sum(1)) - logits[rows, labels]).mean())

    return float(np.exp(minimize_scalar(nll, bounds=(0.0, 5.0), method="bounded").x))


def put(head: Head, linear: Linear) -> None:
    assert head.classifier is not None
    layer = head.classifier[-1]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(linear.weight))
        layer.bias.copy_(torch.from_numpy(linear.bias))


def _tune(
    model: Classifier,
    train: HeadInputs,
    other: HeadInputs,
    epochs: int,
    seed: int,
    start_progress: StartProgress | None,
) -> Finetuned:
    assert train.between is not None
    assert other.between is not None
    if not len(other.labels):
        raise ValueError("fine-tuning needs held-out images to stop by: give validation=, or more images per class.")
    progress: Callable[..., Any] | None = start_progress("Fine-tuning the last stage") if start_progress else None
    kinds = [(part, next(part.parameters()).dtype) for part in (model.features, model.head)]
    model.float()  # small steps vanish in half precision
    tuned = finetune(
        model, LastStage(train.between, train.labels), LastStage(other.between, other.labels), epochs, seed, progress
    )
    for part, kind in kinds:
        part.to(kind)
    return tuned
