"""A pool and a classifier: what turns feature maps into an answer."""

from gapstone.heads.head import Contributions, Head, NotLinearError
from gapstone.heads.recipes import RECIPES
from gapstone.heads.spec import Spec, parse, split_specs

__all__ = ["RECIPES", "Contributions", "Head", "NotLinearError", "Spec", "parse", "split_specs"]
