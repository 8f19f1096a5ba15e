"""`accelerate`: gapstone's pools in a network that calls torch's; see docs/accelerate.md."""

from gapstone.accelerating.accelerate import accelerate as accelerate
from gapstone.accelerating.accelerate import accelerated as accelerated
