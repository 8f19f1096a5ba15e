"""Networks with weights and statistics that a mistaken order of layers would show, drawn without waiting for inits."""

import torch
from torch import nn


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module`, made on the meta device, on the CPU, its numbers drawn anew; in eval mode."""
    module = module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point():
                tensor.zero_()
            elif tensor.dim() > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("running_var", "weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.normal_(0, 0.1, generator=generator)
    return module.eval()


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, as a part of the largest number of b (or of 1)."""
    assert a.shape == b.shape
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / max(1.0, float(b.abs().max())))
