"""Pools made of pools: their answers side by side, or averaged. Any tuple of names is one too, side by side."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Composition:
    pools: tuple[str, ...]
    join: Literal["cat", "mean"]
    about: str


COMPOSITIONS: dict[str, Composition] = {
    "avgmax": Composition(("mean", "max"), "mean", "the mean of mean and max"),
    "catavgmax": Composition(("mean", "max"), "cat", "mean and max, one after the other along the channels"),
}
