"""Trackers by their names, as the command takes them."""

from collections.abc import Callable, Iterable

from gapstone.console.formatting import display
from gapstone.trackers.to_mlflow import MLflow
from gapstone.trackers.to_tensorboard import TensorBoard
from gapstone.trackers.to_wandb import Wandb
from gapstone.trackers.tracker import Tracker

BY_NAME: dict[str, Callable[..., Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": Wandb}


def tracker_of(given: str | Tracker) -> Tracker:
    """A tracker by its name and its first argument: a folder, an experiment, a project.

    tracker_of("tensorboard:runs/tb")

    Raises:
        ValueError: there is none of that name.
        ImportError: its package is missing.
    """
    if isinstance(given, Tracker):
        return given
    if not isinstance(given, str):
        raise TypeError(
            f"trackers: {display(repr(given)[:60])} is no tracker: expected one of gs.trackers, such as "
            f"gs.trackers.TensorBoard('runs/tb'), or a subclass of gs.trackers.Tracker."
        )
    name, _, argument = given.strip().partition(":")
    if name not in BY_NAME:
        raise ValueError(
            f"--trackers {display(given)}: expected tensorboard:FOLDER, mlflow:EXPERIMENT or wandb:PROJECT, each also "
            f"without what follows the colon."
        )
    return BY_NAME[name](argument) if argument else BY_NAME[name]()


def trackers_of(given: Iterable[str | Tracker]) -> list[Tracker]:
    """All of these."""
    if isinstance(given, str):
        raise TypeError(f"trackers={given!r}: expected a list, such as trackers=[{given!r}].")
    return [tracker_of(one) for one in given]
