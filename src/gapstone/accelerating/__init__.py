"""`accelerate`: gapstone's pools in a network that calls torch's; see docs/accelerate.md."""

from gapstone.accelerating.front import accelerate as accelerate
from gapstone.accelerating.front import accelerated as accelerated
