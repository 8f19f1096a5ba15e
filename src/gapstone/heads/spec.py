"""The text that names a head: `name[:hidden[,hidden…]][:option=value]…`, such as `fc:512,512:dropout=0.5`."""

from dataclasses import dataclass, field
from difflib import get_close_matches

from gapstone.heads.own_heads import OwnHead, own_head_names
from gapstone.heads.reads import Reads
from gapstone.heads.recipes import RECIPES, Recipe, recipe_of
from gapstone.pools import POOLS
from gapstone.pools.aliases import called_elsewhere
from gapstone.pools.digest import own_pools
from gapstone.pools.registration import UNREGISTERED, is_own

WIDEST = 1_000_000  # a hidden layer; a spec may come from a file that is not ours

ELSEWHERE = {"mean": "gap", "max": "gmp", "logsumexp": "lse"} | dict.fromkeys(
    ("linear", "mlp", "flatten", "dense"), "fc"
)
"""Heads by the name of their pool, or by another library's."""


@dataclass(frozen=True)
class Spec:
    name: str
    hidden: tuple[int, ...] = ()
    options: dict[str, float | str] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The pools and layers that the name stands for."""
        recipe = recipe_of(self.name)
        if recipe is None:
            raise ValueError(f"head {self.name!r} is not known.")
        return recipe

    @property
    def own_pools(self) -> dict[str, str]:
        """The digests of the user's own pools in it, on which its numbers depend.

        Raises:
            ValueError: one of them has none (`gapstone.pools.digest.identity`).
        """
        return own_pools(self.recipe.pools)

    @property
    def reads(self) -> Reads:
        """What the head reads of a backbone."""
        recipe = self.recipe
        token = recipe.class_token or (recipe.pools == ("attention",) and "cls" in self.options)
        maps = not recipe.own and (bool(recipe.pools) or not recipe.class_token)
        return Reads(maps, token, recipe.own, int(self.number("layers", 1)))

    @property
    def own_head(self) -> OwnHead | None:
        """The head of the user's own that it names."""
        return self.recipe.module

    def __str__(self) -> str:
        parts = [self.name]
        if self.hidden:
            parts.append(",".join(map(str, self.hidden)))
        parts += [f"{key}={v:.12g}" if isinstance(v, float) else f"{key}={v}" for key, v in self.options.items()]
        return ":".join(parts)

    @property
    def normed(self) -> bool:
        """Whether what the layers read is batch-normed."""
        return "norm" in self.options

    def number(self, option: str, otherwise: float) -> float:
        value = self.options.get(option, otherwise)
        assert isinstance(value, float | int)
        return float(value)


def parse(text: str) -> Spec:
    """Read a spec.

        >>> parse("fc:512,512:dropout=0.5")
        Spec(name='fc', hidden=(512, 512), options={'dropout': 0.5})

    Raises: ValueError that names the wrong part and what may stand there.
    """
    name, *parts = (part.strip() for part in str(text).split(":"))
    recipe = recipe_of(name)
    if recipe is None:
        close = get_close_matches(name, RECIPES, 1, 0.5)
        other = called_elsewhere(name) or name.lower()
        meant = other if other in RECIPES else ELSEWHERE.get(other) or (close[0] if close else None)
        hint = f" Did you mean {meant!r}?" if meant else UNREGISTERED
        known = ", ".join([*RECIPES, *(pool for pool in POOLS if is_own(pool)), *own_head_names()])
        raise ValueError(f"head {text!r}: {name!r} is not known; there are {known}.{hint}")
    hidden: tuple[int, ...] = ()
    options: dict[str, float | str] = {}
    for place, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if equals:
            if key in options:
                raise ValueError(f"head {text!r}: {key} is given twice.")
            options[key] = _option(text, name, recipe, key, value)
            if recipe.unsaid.get(key) == options[key]:
                del options[key]
        elif place == 0 and part and recipe.module is None:
            hidden = tuple(_width(text, width) for width in part.split(","))
        else:
            raise ValueError(f"head {text!r}: {part!r} is neither hidden widths in second place nor option=value.")
    return Spec(name, hidden, options)


def split_specs(text: str) -> list[str]:
    """`--heads` holds specs with commas between them and inside them: a part that begins with a digit is a width.

    >>> split_specs("gap,fc:512,512:dropout=0.5,nin")
    ['gap', 'fc:512,512:dropout=0.5', 'nin']
    """
    specs: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if specs and part[:1].isdigit():
            specs[-1] += "," + part
        elif part:
            specs.append(part)
    return specs


def _width(text: str, width: str) -> int:
    if not (width.strip().isascii() and width.strip().isdigit() and 1 <= int(width) <= WIDEST):
        raise ValueError(f"head {text!r}: hidden width {width!r} must be a whole number from 1 to {WIDEST:,}.")
    return int(width)


def _option(text: str, name: str, recipe: Recipe, key: str, value: str) -> float | str:
    known = recipe.options
    if not known:
        raise ValueError(f"head {text!r}: {name} is a head of your own and takes no options: its function gives them.")
    if key not in known:
        raise ValueError(f"head {text!r}: {name} takes {', '.join(f'{k}=' for k in known)}, not {key}=.")
    least, most, whole, word = known[key]
    if word and value == word:
        return value
    if least > most:
        raise ValueError(f"head {text!r}: {key}={value} must be {key}={word}.")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not least <= number <= most or (whole and number != int(number)):
        kind = "a whole number" if whole else "a number"
        raise ValueError(
            f"head {text!r}: {key}={value} must be {kind} from {least:g} to {most:g}"
            + (f" or {word!r}." if word else ".")
        )
    return number
