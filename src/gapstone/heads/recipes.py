"""The heads by name. To add one: one entry here."""

from dataclasses import dataclass, field

from gapstone.heads.own_heads import OwnHead, find_own_head
from gapstone.pools import POOLS
from gapstone.pools.name_types import Merging, OwnPool
from gapstone.pools.registration import is_own, load_installed

Range = tuple[float, float, bool, str | None]
"""Least, most, whole numbers only, a word that may stand instead; the word alone where the least is above the most."""

DROPOUT: Range = (0.0, 0.95, False, None)
LAYERS: Range = (1, 1000, True, None)
NORM: Range = (1, 0, False, "batch")


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
    class_token: bool = False
    """It reads the class token, and puts it before the pools' vectors."""
    own: bool = False
    """It reads the vector of the backbone's own pooler, and nothing else."""
    module: OwnHead | None = None
    """It is a module of the user's own, which reads maps."""

    @property
    def options(self) -> dict[str, Range]:
        if self.module is not None:
            return {}  # what it can be given, its own function gives it
        layers = {} if self.own else {"layers": LAYERS}
        norm = {} if self.maps else {"norm": NORM}  # of class maps there is no vector
        return {"dropout": DROPOUT, **norm, **layers, **self.parameters}

    @property
    def unsaid(self) -> dict[str, float]:
        """Options that say nothing when they have this value: gap:dropout=0 is gap."""
        always = {"dropout": 0.0, "layers": 1.0}
        return {**always, "queries": 1.0, "cls": 0.0} if self.pools == ("attention",) else always


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
    "cls": Recipe("the class token of a ViT, then linear", class_token=True),
    "cls+gap": Recipe("class token and mean of the patches side by side, then linear", ("mean",), class_token=True),
    "attention": Recipe(
        "attention pooling with learned queries, side by side, then linear",
        ("attention",),
        parameters={"queries": (1, 64, True, None), "cls": (0, 1, True, None)},
    ),
    "own": Recipe("the backbone's own pooler with its weights, then linear", own=True),
}


def recipe_of(name: str) -> Recipe | None:
    """The head of that name; a pool of the user's own is one: the pool, then linear. None: there is none."""
    if name not in RECIPES and name not in POOLS:
        load_installed()
    if (own := find_own_head(name)) is not None:
        return Recipe("a head of one's own", module=own)
    if name in RECIPES or not is_own(name):
        return RECIPES.get(name)
    options: dict[str, Range] = {
        key: (p.least, p.most, p.whole, None if p.learned is None else "learned")
        for key, p in POOLS[name].parameters.items()
    }
    return Recipe(f"{name} pooling, then linear", (OwnPool(name),), parameters=options)
