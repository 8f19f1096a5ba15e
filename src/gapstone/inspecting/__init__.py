"""Where a network's parameters and multiply-adds are, what sizes it takes, what other heads would cost on it."""

from gapstone.inspecting.inspect import inspect
from gapstone.inspecting.inspection import Inspection

__all__ = ["Inspection", "inspect"]
