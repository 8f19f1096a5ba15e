"""Images of different sizes in one batch, each answered exactly as if it were alone."""

from gapstone.mixed.front import How, mixed_sizes, outputs, plan
from gapstone.mixed.planning import Plan
from gapstone.mixed.valid import Refused

__all__ = ["How", "Plan", "Refused", "mixed_sizes", "outputs", "plan"]
