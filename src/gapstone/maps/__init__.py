"""Class activation maps: what each position of the last feature map adds to each class's logit."""

from gapstone.drawing.evidence import Evidence
from gapstone.maps.explain import explain
from gapstone.maps.explanation import Explanation
from gapstone.tracing.placement import Placement

__all__ = ["Evidence", "Explanation", "Placement", "explain"]
