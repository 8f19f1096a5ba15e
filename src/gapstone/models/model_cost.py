"""What a classifier costs: parameters, and multiply-adds for one image."""

import torch

from gapstone.models.classifier import Classifier
from gapstone.tracing.arithmetic import macs


def cost(model: Classifier) -> dict[str, int]:
    """`parameters` of the whole, `head_parameters`, and `macs`: multiply-adds of convolutions and matrix products.

    >>> cost(gs.Classifier("resnet18", "gap", labels, preprocessing))["macs"]
    1814073344

    Pools, norms and activations count as none, as everywhere in the literature. The modes of all modules stay.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, model.preprocessing.channels, *model.preprocessing.size, device=device)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "head_parameters": sum(p.numel() for p in model.head.parameters()),
        "macs": macs(model, image),
    }
