"""The name of a pool, of a composition, or of several pools: what it stands for, and the error for any other."""

from difflib import get_close_matches

from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY, Composition, Definition, WholeOnly
from gapstone.pools.aliases import called_elsewhere
from gapstone.pools.name_types import AnyName
from gapstone.pools.registration import UNREGISTERED, load_installed


def one_or_more(name: AnyName) -> str | tuple[str, ...]:
    """A list as a tuple: all that YAML knows."""
    return tuple(name) if isinstance(name, list) else name  # type: ignore[return-value]


def joined_names(name: AnyName) -> str:
    """The name as it is shown in a sentence."""
    return name if isinstance(name, str) else " + ".join(name)


def pool_named(name: str) -> Definition | WholeOnly:
    """The pool of a name that is known."""
    return POOLS[name] if name in POOLS else WHOLE_ONLY[name]


def composition_of(name: AnyName) -> Composition | None:
    """The recipe of a composition; None for a pool; an error for anything else."""
    if isinstance(name, tuple) and name:
        for each in name:
            if composition_of(each) is not None:
                raise ValueError(f"pool({name!r}): {each!r} is a composition itself; name its pools.")
        return Composition(name, "cat", "")
    if isinstance(name, str) and name in COMPOSITIONS:
        return COMPOSITIONS[name]
    if isinstance(name, str) and name not in POOLS and name not in WHOLE_ONLY:
        load_installed()
    if not isinstance(name, str) or (name not in POOLS and name not in WHOLE_ONLY):
        known = [*POOLS, *WHOLE_ONLY, *COMPOSITIONS]
        close = get_close_matches(str(name), known, 1, 0.4)
        meant = called_elsewhere(str(name)) or (close[0] if close else None)
        hint = f" Did you mean {meant!r}?" if meant else UNREGISTERED
        raise ValueError(f"pool {name!r} is not known; there are {', '.join(known)}, and tuples of them.{hint}")
    return None
