"""`gs.inspect`: the costs of a network per module, the image sizes it takes, and the costs of other heads on it."""

from gapstone.inspecting.inspect import inspect
from gapstone.inspecting.inspection import Inspection

__all__ = ["Inspection", "inspect"]
