"""Networks, heads and pools of the user's own, on their way to the processes of trials.

They may stand in a script or a notebook, whose classes plain pickle does not take to another process. A module of the
user's is imported there anew; if it was edited meanwhile, that is told instead of mixed into the same results.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from gapstone.console.formatting import display
from gapstone.heads.own_heads import OwnHead, register_head
from gapstone.nets.own_features import OwnTrunk, register_own
from gapstone.pools import POOLS
from gapstone.pools.definition import Definition
from gapstone.pools.digest import identity
from gapstone.pools.registration import register_pool
from gapstone.runtime.code_digest import UnknownCodeError, code_digest


@dataclass(frozen=True)
class UserCode:
    """What trials need of the user's own; unpickling it makes it known by its names.

    code = UserCode.of({"module:Net-1a2b3c4d": own.trunk}, heads={}, pools={})
    """

    pickled: bytes = field(repr=False)
    digest: str | None
    """Of what is pickled; None: it cannot be told."""
    folders: tuple[str, ...]
    """Where modules of the user's are looked for, after all others."""

    @classmethod
    def of(
        cls, networks: Mapping[str, OwnTrunk], heads: Mapping[str, OwnHead], pools: Mapping[str, Definition]
    ) -> "UserCode | None":
        """Of these; None where there is nothing to take along.

        Raises:
            ValueError: it cannot be pickled; says why.
        """
        content = dict(networks), dict(heads), dict(pools)
        if not any(content):
            return None
        try:
            pickled = cloudpickle.dumps(content)
        except Exception as error:  # whatever the user's objects raise
            names = ", ".join(map(display, (*networks, *heads, *pools)))
            raise ValueError(
                f"{names} cannot be sent to the processes that train ({type(error).__name__}: {error}): keep open "
                f"files, locks and generators out of it, or give a function that builds it."
            ) from error
        return cls(pickled, _digest(content), tuple(os.path.abspath(entry) for entry in sys.path))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.pickled, self.digest, self.folders)


def _restored(pickled: bytes, digest: str | None, folders: tuple[str, ...]) -> UserCode:
    sys.path += [folder for folder in folders if folder not in sys.path]
    networks, heads, pools = content = cloudpickle.loads(pickled)
    if digest is not None and _digest(content) != digest:
        raise ValueError(
            f"the code of {', '.join(map(display, (*networks, *heads, *pools)))} has changed since the comparison "
            f"began: start it again."
        )
    for name, trunk in networks.items():
        register_own(name, trunk)
    for name, head in heads.items():
        register_head(name, head)
    for name, definition in pools.items():
        if name not in POOLS or identity(POOLS[name]) != identity(definition):
            POOLS.pop(name, None)
            register_pool(definition)
    return UserCode(pickled, digest, folders)


def _digest(content: object) -> str | None:
    try:
        return code_digest(content)
    except UnknownCodeError:
        return None
