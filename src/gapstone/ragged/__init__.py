"""Images of different sizes in one batch, each answered exactly as if it were alone."""

from gapstone.ragged.batching import Plan
from gapstone.ragged.extents import Refused
from gapstone.ragged.mixed_sizes import How, mixed_sizes, outputs, plan

__all__ = ["How", "Plan", "Refused", "mixed_sizes", "outputs", "plan"]
