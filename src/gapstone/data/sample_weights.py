"""How much each image counts in training: `--sample-weight COLUMN`."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.data.groups import key
from gapstone.data.sources import DataError, Source, few
from gapstone.statistics.labels import class_counts

USUAL = ("weight", "weights", "sample_weight", "sample_weights")
"""What such columns are called."""


def with_weights(source: Source, column: str | None) -> Source:
    """The source with `weights`, those of a column of its table.

    ```python
    with_weights(source, "weight").weights     # array([1. , 0.5, 2. , …])
    ```

    Raises:
        DataError: there is no such column; a weight is no number, negative, or infinite; all are 0.
    """
    if column is None:
        return source
    option, given = f"--sample-weight {display(column)}", display(source.given)
    cells = source.columns.get(key(column))
    if cells is None:
        raise DataError(f"{option}: DATA {given!r} ({source.kind}) is no table and has no columns.")
    weights = np.fromiter((_number(cell) for cell in cells), np.float64, len(cells))
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{option}: the weight of {display(source.items[first].name)} is {display(cells[first])!r}; expected a "
            "number, 0 or more."
        )
    if not weights.any():
        raise DataError(f"{option}: all weights are 0: there is nothing to train on.")
    columns = {name: values for name, values in source.columns.items() if name != key(column)}
    if len(np.unique(weights)) == 1:
        note = f"{option}: all weights are {weights[0]:g}, so they change nothing"
        return replace(source, columns=columns, notes=(*source.notes, note))
    return replace(source, columns=columns, weights=weights)


def describe_weights(source: Source, trainings: Sequence[NDArray[np.intp]], column: str) -> str:
    """What is done with the weights, in a sentence; `trainings` are the training images of each seed or fold.

    Raises DataError if all of a class have the weight 0.
    """
    assert source.weights is not None
    for rows in trainings:
        counted = rows[source.weights[rows] > 0]
        before, after = (class_counts(source.labels[part], len(source.classes)) for part in (rows, counted))
        if gone := [source.classes[k] for k in np.flatnonzero((before > 0) & (after == 0)).tolist()]:
            raise DataError(f"--sample-weight {display(column)}: all training images of {few(gone)} have the weight 0.")
    weights = source.weights[np.unique(np.concatenate(trainings))]
    return (
        f"--sample-weight {display(column)}: from {weights.min():g} to {weights.max():g} for training images; an epoch "
        "draws each as often as that says. Validation and test images count the same."
    )


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
