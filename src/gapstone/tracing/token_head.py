"""From tokens that hear each other to contributions: what each patch token adds to each logit of a class token."""

from contextlib import suppress

import torch
from torch import Tensor

from gapstone.tracing.held_tokens import HeldTokens
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
        self.lanes: TokenLanes | None = None
        if self.additive:
            with suppress(NotInRowsError):
                assert isinstance(self.held, HeldTokens)
                self.lanes = TokenLanes(tape, self.held, self.live, self.out, prefix, also)

    @property
    def holds(self) -> tuple[str, ...]:
        """What is held, in words; what the first tokens bring is a number of the image, too."""
        first = "what the first token brings" if self.prefix == 1 else f"what the first {self.prefix} tokens bring"
        return (*super().holds, *([first] if self.prefix else []))

    def _poolings(self) -> list[Pooling]:
        return []

    def _nothing(self) -> Tensor:
        """The first tokens alone."""
        tokens = self.tape.map.clone()
        tokens.permute(self.order)[:, :, self.prefix :] = 0
        return tokens

    @torch.no_grad()
    def bias(self) -> Tensor:
        """(N, C): the logits without what the positions add."""
        if self.lanes is not None:
            return self.lanes.rest().float()
        self._again(instead=True)  # what is held is of the images
        return self._of_nothing(held=True)

    def maps(self, classes: Tensor | None) -> Tensor:
        """(N, K, *cells), without the first tokens."""
        if self.lanes is not None:
            return self.lanes.parts(classes)
        return super().maps(classes)[:, :, self.prefix :]
