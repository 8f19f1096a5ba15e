"""The heads by name. To add one: one entry here."""

from dataclasses import dataclass, field

from gapstone.pools import POOLS
from gapstone.pools.name_types import Merging, OwnPool
from gapstone.pools.registration import is_own, load_installed

Range = tuple[float, float, bool, str | None]
"""Least, most, whole numbers only, a word that may stand instead."""

DROPOUT: Range = (0.0, 0.95, False, None)


@dataclass(frozen=True)
class Recipe:
    """Which pools a head is made of, and how their answers meet the classifier."""

    describe: str
    pools: tuple[Merging, ...] = ()
    join: str = "cat"
    """What becomes of several pools' vectors: "cat" puts them one after another, "mean" averages them."""
    maps: bool = False
    """One map per class by 1×1 convolutions, then the pool, straight into softmax."""
    parameters: dict[str, Range] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Range]:
        return {"dropout": DROPOUT, **self.parameters}


RECIPES: dict[str, Recipe] = {
    "gap": Recipe("global average pooling, then linear", ("mean",)),
    "gmp": Recipe("global max pooling, then linear", ("max",)),
    "gem": Recipe("generalised-mean pooling, then linear", ("gem",), parameters={"p": (0.1, 100.0, False, "learned")}),
    "lse": Recipe(
        "log-sum-exp pooling (a smooth maximum), then linear",
        ("logsumexp",),
        parameters={"r": (0.01, 100.0, False, "learned")},
    ),
    "avgmax": Recipe("average of mean and max pooling, then linear", ("mean", "max"), join="mean"),
    "catavgmax": Recipe("mean and max pooling side by side, then linear", ("mean", "max")),
    "nin": Recipe("one map per class (1×1 convolution), then global average pooling", ("mean",), maps=True),
    "fc": Recipe("flatten, then linear", parameters={"grid": (1, 64, True, None)}),
}


def recipe_of(name: str) -> Recipe | None:
    """The head of that name; a pool of the user's own is one: the pool, then linear. None: there is none."""
    if name not in RECIPES and name not in POOLS:
        load_installed()
    if name in RECIPES or not is_own(name):
        return RECIPES.get(name)
    options: dict[str, Range] = {
        key: (p.least, p.most, p.whole, None if p.learned is None else "learned")
        for key, p in POOLS[name].parameters.items()
    }
    return Recipe(f"{name} pooling, then linear", (OwnPool(name),), parameters=options)
