"""Classifiers of Hugging Face's transformers, of random weights: they open as any nn.Module does."""

import pytest
import torch

import gapstone as gs

CLASSES = 5
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
MLP = {"intermediate_size": 48}
STAGES = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
FAMILIES = {
    "ViT": (SMALL | MLP, 1),
    "Dinov2": (SMALL, 1),
    "Dinov2WithRegisters": (SMALL, 5),
    "Siglip": ({"vision_config": SMALL | MLP}, 0),
    "CLIP": ({"vision_config": SMALL | MLP}, 0),
    "Swin": (STAGES, 0),
    "ConvNext": ({"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}, 0),
}
"""The configuration, and the tokens that bring something of their own."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_classifier_of_transformers(name):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install transformers")
    config, prefix = FAMILIES[name]
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}Config")(**config, num_labels=CLASSES)
    model = getattr(transformers, f"{name}ForImageClassification")(made).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape) * (parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.5)
    images = torch.randn(2, 3, 32, 32)
    explained = gs.explain(model, images)
    scale = explained.logits.abs().max()
    with torch.no_grad():
        torch.testing.assert_close(explained.logits, model(images).logits)
    assert explained.additive
    assert explained.completeness.max() < 1e-5 * scale
    assert explained.maps.flatten(2).std(2).min() > 1e-4 * scale
    first = {0: [], 1: ["what the first token brings"]}.get(prefix, [f"what the first {prefix} tokens bring"])
    assert [what for what in explained.held if "first" in what] == first
