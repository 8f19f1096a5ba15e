"""Another head on any network: where its last map is, what was cut, what stands there now."""

from gapstone.swapping.swap import swap_head
from gapstone.swapping.swap_report import Swapped, head_of, swapped

__all__ = ["Swapped", "head_of", "swap_head", "swapped"]
