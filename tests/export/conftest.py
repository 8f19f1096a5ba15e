"""Small models with weights that make every part of a head matter."""

import pytest
import torch

from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.open_model import ImageModel
from gapstone.models.classifier import Classifier

LABELS = ("arduino", "esp 32", "Ω")


@pytest.fixture(scope="session")
def make():
    """`make("nin", "gap")`: a model in eval mode, opened; weights, moving averages and learned numbers at random."""

    def made(backbone="nin", head="gap", size=(28, 28), channels=3, labels=LABELS, stored=None):
        torch.manual_seed(20)
        preprocessing = Preprocessing(channels, size, stored or size, (0.45,) * channels, (0.25,) * channels)
        model = Classifier(backbone, head, labels, preprocessing).eval()
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(layer.running_mean, 0, 0.2)
                torch.nn.init.uniform_(layer.running_var, 0.5, 2)
                torch.nn.init.normal_(layer.bias, 0, 0.3)
        for name, parameter in model.head.named_parameters():
            if parameter.dim() == 0:
                torch.nn.init.constant_(parameter, {"p": 2.3, "r": 3.7}[name[-1]])
        return ImageModel(f"{backbone} {head}", model, model.labels, preprocessing)

    return made
