"""Which loop serves a call, and why: one rule, read by the front door and by `gapstone doctor`."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from gapstone.loops import native
from gapstone.loops import numba as compiled
from gapstone.regions.places import Place

Loop = Literal["native", "numba", "torch"]


@dataclass(frozen=True)
class Choice:
    loop: Loop
    why: str


def choose(name: str, x: Tensor, place: Place, parameters: tuple[Any, ...] = ()) -> Choice:
    if reason := native.serves(name, x, place):
        return Choice("native", reason)
    if x.device.type != "cpu":
        return Choice("torch", f"no compiled loop for {x.device.type} yet")
    if reason := compiled.serves(name, x.dtype, place):
        return Choice("torch", reason)
    return Choice("numba", "derived from the pool's definition and compiled for this machine")
