"""Networks, heads and pools of the user's own, on their way to the processes of trials.

If a module of the user's was edited meanwhile, that is told instead of mixed into the same results.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gapstone.console.formatting import display
from gapstone.heads.own_heads import OwnHead, register_head
from gapstone.nets.own_features import OwnTrunk, register_own
from gapstone.pools import POOLS
from gapstone.pools.definition import Definition
from gapstone.pools.digest import identity
from gapstone.pools.registration import register_pool
from gapstone.runtime.code_digest import UnknownCodeError, code_digest
from gapstone.workers.user_pickle import UserPickle, changed


@dataclass(frozen=True)
class UserCode:
    """What trials need of the user's own; unpickling it makes it known by its names.

    code = UserCode.of({"module:Net-1a2b3c4d": own.trunk}, heads={}, pools={})
    """

    pickled: UserPickle
    digest: str | None
    """Of what is pickled; None: it cannot be told."""

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
        pickled = UserPickle.of(content, _names(*content), "or give a function that builds it")
        return cls(pickled, _digest(content))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.pickled, self.digest)


def _restored(pickled: UserPickle, digest: str | None) -> UserCode:
    networks, heads, pools = content = pickled.load()
    if digest is not None and _digest(content) != digest:
        raise changed(_names(*content))
    for name, trunk in networks.items():
        register_own(name, trunk)
    for name, head in heads.items():
        register_head(name, head)
    for name, definition in pools.items():
        if name not in POOLS or identity(POOLS[name]) != identity(definition):
            POOLS.pop(name, None)
            register_pool(definition)
    return UserCode(pickled, digest)


def _names(*content: Mapping[str, object]) -> str:
    return ", ".join(display(name) for part in content for name in part)


def _digest(content: object) -> str | None:
    try:
        return code_digest(content)
    except UnknownCodeError:
        return None
