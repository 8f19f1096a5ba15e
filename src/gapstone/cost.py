"""What a classifier costs: parameters, and multiply-adds for one image."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from gapstone.classifier import Classifier


def cost(model: Classifier) -> dict[str, int]:
    """`parameters` of the whole, `head_parameters`, and `macs`: multiply-adds of convolutions and matrix products.

    >>> cost(gs.Classifier("resnet18", "gap", labels, preprocessing))["macs"]
    1814073344

    Pools, norms and activations count as none, as everywhere in the literature. The model's mode stays.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, model.preprocessing.channels, *model.preprocessing.size, device=device)
    counter = FlopCounterMode(display=False)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), counter:
            model(image)
    finally:
        model.train(was_training)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "head_parameters": sum(p.numel() for p in model.head.parameters()),
        "macs": counter.get_total_flops() // 2,
    }
