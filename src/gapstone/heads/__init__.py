"""A pool and a classifier: what turns feature maps into an answer."""

from gapstone.heads.head import Contributions, Head, NotLinearError
from gapstone.heads.reads import BackboneOutput, Reads
from gapstone.heads.recipes import RECIPES
from gapstone.heads.spec import Spec, parse, split_specs

__all__ = [
    "RECIPES",
    "BackboneOutput",
    "Contributions",
    "Head",
    "NotLinearError",
    "Reads",
    "Spec",
    "parse",
    "split_specs",
]
