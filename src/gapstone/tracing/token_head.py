"""From tokens that hear each other to contributions: what each patch token adds to each logit of a class token."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from gapstone.heads.contributions import first_tokens
from gapstone.tracing.held_scales import wide
from gapstone.tracing.held_tokens import HeldTokens
from gapstone.tracing.jacobian import jacobian
from gapstone.tracing.tape import Tape
from gapstone.tracing.token_lanes import TokenLanes
from gapstone.tracing.token_rows import NotInRowsError
from gapstone.tracing.traced_head import Pooling, TracedHead


class TokenHead(TracedHead):
    """Everything after the tokens that enter the last block in which a class token, or an attention pool, hears them.

    tape, logits: of that pass. prefix: how many tokens stand before those of the positions. What these bring, and
    biases, is no position's: it is the `bias`, each image's own. also: the slot of later tokens, of which a pool hears
    the patches, beside a class token that hears those of the tape's start. Maps are by `TokenLanes` where the tape has
    the form; elsewhere the same numbers come from a vector-Jacobian product for each class.
    """

    def __init__(self, tape: Tape, logits: Tensor, prefix: int, also: int | None = None) -> None:
        self.prefix = prefix
        super().__init__(tape, logits, HeldTokens(tape))
        self.later: Tensor | None = None
        """The patches of the later tokens."""
        if also is not None:
            self._hear_later(also)
        self.lanes: TokenLanes | None = None
        if self.additive:
            with suppress(NotInRowsError):
                assert isinstance(self.held, HeldTokens)
                self.lanes = TokenLanes(tape, self.held, self.live, self.out, prefix, also)

    @property
    def holds(self) -> tuple[str, ...]:
        """What is held, in words; what the first tokens bring is a number of the image, too."""
        return (*super().holds, *([first_tokens(self.prefix)] if self.prefix else []))

    def _poolings(self) -> list[Pooling]:
        return []

    def _nothing(self) -> Tensor:
        """The first tokens alone."""
        tokens = self.tape.map.clone()
        tokens.permute(self.order)[:, :, self.prefix :] = 0
        return tokens

    def _hear_later(self, also: int) -> None:
        """In replays the later tokens keep their first ones, and have `later` for their patches."""
        call = next(call for call in self.tape.calls if also in call.slots)
        made, axis = self.held.functions.get(call, call.function), self.tape.axes[0]
        whole = self.tape.values()[also]
        self.later = whole.narrow(axis, self.prefix, whole.shape[axis] - self.prefix).detach()

        def joined(*args: Any, **kwargs: Any) -> Tensor:
            assert self.later is not None
            return torch.cat([made(*args, **kwargs).narrow(axis, 0, self.prefix), self.later], axis)

        self.held.functions[call] = joined

    @torch.no_grad()
    def bias(self) -> Tensor:
        """(N, C): the logits without what the positions add."""
        if self.lanes is not None:
            return wide(self.lanes.rest())
        self._again(instead=True)  # what is held is of the images
        later = self.later
        self.later = None if later is None else torch.zeros_like(later)
        rest = self._of_nothing(held=True)
        self.later = later
        return rest

    def maps(self, classes: Tensor | None) -> Tensor:
        """(N, K, *cells), without the first tokens."""
        if self.lanes is not None:
            return self.lanes.parts(classes)
        if self.later is not None:
            return torch.cat(list(self._through_both(classes)), 1)
        return super().maps(classes)[:, :, self.prefix :]

    def _through_both(self, classes: Tensor | None) -> Iterator[Tensor]:
        later = self.later
        assert later is not None
        axis = self.tape.axes[0]
        with torch.inference_mode(False), torch.enable_grad():
            x, y = self.tape.map.detach().clone().requires_grad_(), later.clone().requires_grad_()
            self.later = y * 1
            logits = self.tape.replay(x * 1, instead=self.held.functions)[self.out]
        self.later = later
        for of_x, of_y in jacobian(logits, [x, y], classes, None):
            patches = (of_x * x.detach()[:, None]).narrow(axis + 1, self.prefix, later.shape[axis])
            both = wide(patches + of_y * later[:, None])
            yield both.sum(tuple(d for d in range(2, both.dim()) if d != axis + 1))
