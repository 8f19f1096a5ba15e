"""Checks whether a network without its head returns the output of what replaces the head, in both modes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gapstone.runtime.eval_mode import eval_mode

PASSES = 3
"""Passes in training mode: random layers (a dropout of the logits) may have no effect in one."""
LARGE = 1e4
"""Size of the probe's logits: large enough to reveal a clamp, small enough for half precision."""


class Probe(nn.Module):
    """Replaces a head: returns known logits of both signs and stores its input, the map."""

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
def passes_logits_on(
    model: nn.Module, images: Tensor, features: Tensor, probe: Probe, output_class: type | None = None
) -> bool:
    """Tell whether the probe gets the same map as the old head, and the model returns the probe's logits.

    The probe is in the place of the model's head, whose map for these images was `features`; in training, one image
    more is used. `output_class`: of the model's output that holds the logits; None: the output is the logits.
    """
    try:
        with eval_mode(model):
            out = model(images)
        if not _same(out, probe, output_class) or probe.map is None or not approximately_equal(probe.map, features):
            return False
        more = torch.cat([images, images[:1]])
        with training(model) as state:
            return all(
                _same(torch.func.functional_call(model, state, (more,)), probe, output_class) for _ in range(PASSES)
            )
    except Exception:  # the rest of the network cannot take logits and may fail in any way
        return False


@contextmanager
def training(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Set training mode, yield copies of the buffers, and restore modes and torch's random generators at the end."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {t.device for t in (*model.parameters(), *model.buffers())}
    with torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]):
        try:
            model.train()
            yield {name: buffer.clone() for name, buffer in model.named_buffers()}
        finally:
            for module, mode in modes:
                module.training = mode


def approximately_equal(a: Tensor, b: Tensor) -> bool:
    """Compare with a tolerance for other kernels: torch does not use some of them while it is traced."""
    tolerance = max(1e-3, 16 * torch.finfo(b.dtype).eps)
    return a.shape == b.shape and torch.allclose(
        a.float(), b.float(), rtol=tolerance, atol=tolerance * float(b.abs().max())
    )


def _same(out: object, probe: Probe, output_class: type | None) -> bool:
    if output_class is not None:
        out = getattr(out, "logits", None) if isinstance(out, output_class) else None
    return isinstance(out, Tensor) and probe.logits is not None and torch.equal(out, probe.logits)
