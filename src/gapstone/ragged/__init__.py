"""Images of different sizes in one batch, each answered exactly as if it were alone."""

from gapstone.ragged.batching import BatchPlan
from gapstone.ragged.extents import Unsupported
from gapstone.ragged.mixed_sizes import How, mixed_sizes, outputs, plan

__all__ = ["BatchPlan", "How", "Unsupported", "mixed_sizes", "outputs", "plan"]
