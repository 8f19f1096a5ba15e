"""The heads of `gs.compare`: specs, and heads of the user's own by the names that they are given."""

from collections.abc import Iterable, Mapping

from gapstone.console.formatting import display
from gapstone.heads import RECIPES
from gapstone.heads.own_heads import OwnHead, OwnHeadLike, own_head, register_head


def name_heads(heads: Iterable[str | Mapping[str, OwnHeadLike]]) -> tuple[tuple[str, ...], dict[str, OwnHead]]:
    """Specs of all heads, and those of the user's own by their names, which are known in this process from now on.

    name_heads(["gap", {"mine": lambda channels, classes, size: MyHead(channels, classes)}])[0]
    ('gap', 'mine')

    Raises:
        ValueError: a name that is no name, or is taken.
        TypeError: what is neither text nor a head by its name.
    """
    if isinstance(heads, str):
        raise TypeError(f"heads={heads!r}: expected a list, such as heads=[{heads!r}].")
    specs: list[str] = []
    own: dict[str, OwnHead] = {}
    for head in heads:
        if isinstance(head, str):
            specs.append(head)
        elif isinstance(head, Mapping):
            own |= {name: own_head(name, made, RECIPES) for name, made in head.items()}
            specs += head
        else:
            raise TypeError(
                f"heads: {display(repr(head)[:60])} has no name: give it one, {{'mine': {type(head).__name__}}}"
            )
    for name, made_by in own.items():
        register_head(name, made_by)
    return tuple(specs), own
