"""Class activation maps: what each position of the last feature map adds to each class's logit."""

from gapstone.maps.explain import Explanation, explain_maps

__all__ = ["Explanation", "explain_maps"]
