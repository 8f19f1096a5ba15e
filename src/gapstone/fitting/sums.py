"""A head from images that lie on several machines: each sends its sums, never its images; ridge of the total."""

import copy
import hashlib
import json
from collections.abc import Sequence

import numpy as np
from torch import nn

from gapstone.fitting.data import Batches, InMemory
from gapstone.fitting.fit import asked, names_of, put, sharpness, with_head
from gapstone.fitting.linear import Linear, check, finite
from gapstone.fitting.ridge import Ridge
from gapstone.fitting.seen import look
from gapstone.heads import Head, parse
from gapstone.swapping.report import head_of
from gapstone.weights import digest


def head_sums(model: nn.Module, data: Batches, head: str | None = None, labels: Sequence[str] | None = None) -> Ridge:
    """The sums of `data` for `head`; arguments and errors as `fit_head`, but a class may have no images here.

    >>> head_sums(model, loader, "gap").save("site-a.npz")                      # on each machine
    >>> total = Ridge.load("site-a.npz") + Ridge.load("site-b.npz")             # on one
    >>> new = fit_sums(model, total, "gap", validation=own_loader)
    """
    path, old = head_of(model)
    spec = str(parse(head or old.spec))
    asked(spec, "ridge", 0)
    names = names_of(model, old, labels)
    new_head = head_of(with_head(model, path, old, spec, names))[1]
    seen = look(model, new_head, InMemory(data, next(model.parameters()).device))
    finite(seen.vectors)
    check(seen.labels, names, every=False)
    return Ridge.of(seen.vectors, np.eye(len(names))[seen.labels], _identity(model, old, spec, names))


def fit_sums(
    model: nn.Module,
    total: Ridge,
    head: str | None = None,
    labels: Sequence[str] | None = None,
    validation: Batches | None = None,
) -> nn.Module:
    """A copy of `model` with the head that `total`, the sums of all machines, says; `head` and `labels` as they had.

    validation: some images, to make its scores into logits; without them the order of its answers is the same, and its
    probabilities are far too unsure. Raises: ValueError where the sums are of another model, head or order of
    classes, or a class has no images in any of them.
    """
    path, old = head_of(model)
    spec = str(parse(head or old.spec))
    asked(spec, "ridge", 0)
    names = names_of(model, old, labels)
    new = with_head(model, path, old, spec, names)
    new_head = head_of(new)[1]
    assert new_head.classifier is not None
    layer = new_head.classifier[-1]
    assert isinstance(layer, nn.Linear)
    expected = (layer.in_features, layer.out_features)
    if total.xy.shape != expected:
        raise ValueError(f"fit_sums: the sums are of {total.xy.shape} (features, classes); {spec!r} has {expected}.")
    if total.identity != _identity(model, old, spec, names):
        raise ValueError(
            "fit_sums: the sums are of another model, head or order of classes; make them with the same file, head= "
            "and labels= on every machine."
        )
    if (total.y < 0.5).any():
        raise ValueError(f"fit_sums: no images of {names[int(total.y.argmin())]!r} in any of the sums.")
    linear = total.solve()
    if validation is not None:
        seen = look(model, new_head, InMemory(validation, next(model.parameters()).device))
        finite(seen.vectors)
        check(seen.labels, names, every=False)
        factor = sharpness(linear(seen.vectors), seen.labels)
        linear = Linear(linear.weight * factor, linear.bias * factor, linear.penalty)
    put(new_head, linear)
    return new


def _identity(model: nn.Module, old: Head, spec: str, names: tuple[str, ...]) -> str:
    """Sixteen hex digits of all that the sums depend on besides the images; not of the head that is exchanged."""
    trunk = copy.deepcopy(model, {id(old): nn.Identity()})  # the memo: where the head was, nothing
    return hashlib.sha256(json.dumps([digest(trunk), spec, names]).encode()).hexdigest()[:16]
