"""A pool and a classifier: what turns feature maps into an answer."""

from gapstone.heads.head import Contributions, Head
from gapstone.heads.recipes import RECIPES
from gapstone.heads.spec import Spec, parse, split_specs

__all__ = ["RECIPES", "Contributions", "Head", "Spec", "parse", "split_specs"]
