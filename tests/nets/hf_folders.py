"""Model folders as save_pretrained of transformers writes them: small networks, random weights."""

from pathlib import Path
from typing import Any

import torch

SIDE = 32
LABELS = {0: "crane", 1: "dog", 2: "crane"}
TOKENS = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
VIT = {**TOKENS, "image_size": SIDE, "patch_size": 8}
SQUASHED, CROPPED = {"height": SIDE, "width": SIDE}, {"shortest_edge": 40}


def _names() -> dict[str, Any]:
    return {"id2label": LABELS, "label2id": {name: k for k, name in LABELS.items()}}


def _clip(tf: Any) -> Any:
    text = {**TOKENS, "vocab_size": 9, "max_position_embeddings": 8}
    return tf.CLIPModel(tf.CLIPConfig(vision_config=VIT, text_config=text, projection_dim=8))


def _dinov2(registers: bool) -> Any:
    def make(tf: Any) -> Any:
        sizes = {key: value for key, value in VIT.items() if key != "intermediate_size"}
        if registers:
            return tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**sizes, num_register_tokens=2))
        return tf.Dinov2Model(tf.Dinov2Config(**sizes))

    return make


MODELS: dict[str, Any] = {
    "vit": lambda tf: tf.ViTForImageClassification(tf.ViTConfig(**VIT, **_names())),
    "deit": lambda tf: tf.DeiTModel(tf.DeiTConfig(**VIT)),
    "beit": lambda tf: tf.BeitModel(tf.BeitConfig(**VIT)),
    "dinov2": _dinov2(False),
    "dinov2 with registers": _dinov2(True),
    "siglip": lambda tf: tf.SiglipVisionModel(tf.SiglipVisionConfig(**VIT)),
    "clip": _clip,
    "swin": lambda tf: tf.SwinForImageClassification(
        tf.SwinConfig(embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4, image_size=SIDE, **_names())
    ),
    "convnext": lambda tf: tf.ConvNextForImageClassification(
        tf.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=SIDE, **_names())
    ),
    "resnet": lambda tf: tf.ResNetModel(
        tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic")
    ),
    "mobilenet": lambda tf: tf.MobileNetV2Model(tf.MobileNetV2Config(depth_multiplier=0.25)),
    "regnet": lambda tf: tf.RegNetModel(
        tf.RegNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, groups_width=8)
    ),
    "segformer": lambda tf: tf.SegformerModel(
        tf.SegformerConfig(hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], depths=[1] * 4)
    ),
}


def save(folder: Path, kind: str, processor: Any = None) -> Path:
    """The folder; without a processor, images are squashed to its side."""
    import transformers

    torch.manual_seed(0)
    MODELS[kind](transformers).eval().save_pretrained(folder)
    (processor or transformers.ViTImageProcessor(size=SQUASHED)).save_pretrained(folder)
    return folder
