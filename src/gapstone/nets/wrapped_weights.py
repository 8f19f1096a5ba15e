"""The part of a state_dict that is a network's, whatever it was trained in: `teacher.backbone.`, `module.`, …"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from gapstone.console.formatting import count_noun, display
from gapstone.nets.state_dicts import State

PREFERRED = ("ema", "teacher", "encoder_q", "online")
"""Where a network stands twice in a checkpoint: the one that its method publishes."""


@dataclass(frozen=True)
class OwnTensors:
    """Tensors under the network's own names, and what became of the others."""

    state: State
    """The network's, and those beside them: its head's."""
    prefix: str
    """What stood before the names: "", `module.`, `teacher.backbone.`."""
    others: int
    """Tensors elsewhere in the file: of a second network, a loss, a projection."""

    def said(self) -> str | None:
        """A sentence; None where nothing was before the names, and nothing elsewhere."""
        if not self.prefix and not self.others:
            return None
        of = f"those named {display(self.prefix)}…" if self.prefix else "its own"
        others = f"; {count_noun(self.others, 'other tensor')} of the file left out" if self.others else ""
        return f"of its tensors {of} are the network's{others}"


def network_part(state: State, own: Collection[str]) -> OwnTensors:
    """Find what stands before the names of a network, `own`, in a checkpoint.

    >>> names = ["module.conv1.weight", "module.fc.weight", "loss.t"]
    >>> part = network_part(dict.fromkeys(names, torch.ones(1)), {"conv1.weight"})
    >>> part.prefix, list(part.state), part.others
    ('module.', ['conv1.weight', 'fc.weight'], 1)

    Where several prefixes hold as many of its tensors, those of `PREFERRED` come first, then the shortest. If none
    holds any, the state is returned as it is.
    """
    wanted = set(own)
    held: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                held["".join(f"{part}." for part in parts[:start])] += 1
    if not held:
        return OwnTensors(state, "", 0)

    def rank(prefix: str) -> tuple[int, int, int, str]:
        preferred = any(word in prefix for word in PREFERRED)
        return -held[prefix], -preferred, len(prefix), prefix

    best = min(held, key=rank)
    part = {name.removeprefix(best): tensor for name, tensor in state.items() if name.startswith(best)}
    return OwnTensors(part, best, len(state) - len(part))


def without_head(state: State, own: Collection[str]) -> tuple[State, list[str]]:
    """The network's tensors, and the modules beside it that are left out: its head, under whatever name.

    What stands in one of the network's own modules and is not known stays: it is another network's.
    """
    modules = {name.partition(".")[0] for name in own}
    beside = sorted({name.partition(".")[0] for name in state} - modules)
    return {name: tensor for name, tensor in state.items() if name.partition(".")[0] in modules}, beside
