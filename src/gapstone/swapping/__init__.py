"""`gs.swap_head` replaces the head of any network; `gs.swapped` reports what was removed and added."""

from gapstone.swapping.swap import swap_head
from gapstone.swapping.swap_report import Swapped, head_of, swapped

__all__ = ["Swapped", "head_of", "swap_head", "swapped"]
