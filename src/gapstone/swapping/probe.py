"""Whether a network with its head cut off passes on what stands in the head's place, in both modes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gapstone.runtime.eval_mode import eval_mode

PASSES = 3
"""In training: what happens at random (a dropout of the logits) may not happen in one."""
LARGE = 1e4
"""Logits of the probe: a clamp shows, too, and a half float still holds them."""


class Probe(nn.Module):
    """In place of a head: known logits of both signs, and the map that it was given."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.map: Tensor | None = None
        self.logits: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        logits = (LARGE * torch.randn(len(x), self.classes, generator=generator).clamp(-6, 6)).to(x)
        self.map, self.logits = x, logits.clone()
        return logits


@torch.no_grad()
def runs(model: nn.Module, images: Tensor, features: Tensor, probe: Probe, gives: type | None = None) -> bool:
    """Whether the map is the same as before, and the model's answer is the probe's; in training, for a larger batch.

    gives: the class of an answer that holds the logits; None: it is the logits.
    """
    try:
        with eval_mode(model):
            out = model(images)
        if not _same(out, probe, gives) or probe.map is None or not close(probe.map, features):
            return False
        more = torch.cat([images, images[:1]])
        with training(model) as state:
            return all(_same(torch.func.functional_call(model, state, (more,)), probe, gives) for _ in range(PASSES))
    except Exception:  # what remains of the network cannot take logits, in one of many ways
        return False


@contextmanager
def training(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Training mode, with copies of the buffers, which it changes; modes and torch's generators as before after it."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {t.device for t in (*model.parameters(), *model.buffers())}
    with torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]):
        try:
            model.train()
            yield {name: buffer.clone() for name, buffer in model.named_buffers()}
        finally:
            for module, mode in modes:
                module.training = mode


def close(a: Tensor, b: Tensor) -> bool:
    """Up to what other kernels change: torch has some that it does not use while it is watched."""
    room = max(1e-3, 16 * torch.finfo(b.dtype).eps)
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=room, atol=room * float(b.abs().max()))


def _same(out: object, probe: Probe, gives: type | None) -> bool:
    if gives is not None:
        out = getattr(out, "logits", None) if isinstance(out, gives) else None
    return isinstance(out, Tensor) and probe.logits is not None and torch.equal(out, probe.logits)
