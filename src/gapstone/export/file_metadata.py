"""The metadata of an exported file: all that a program without gapstone needs to use it correctly."""

import json
from typing import Any

import torch

from gapstone import __version__
from gapstone.images.intensity_range import UNDECIDED
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.explain import explain
from gapstone.maps.open_model import ImageModel
from gapstone.models.classifier import Classifier

SOFTMAX = "The softmax of the logits are the probabilities, in the order of labels."
SIGMOID = (
    "The sigmoid of each logit is the probability of its label, in the order of labels; those of 0.5 and more (logits "
    "of 0 and more) are predicted, any number of them."
)


def file_metadata(image_model: ImageModel, maps: bool = True) -> dict[str, Any]:
    """Return JSON values by name; ONNX stores each as a text (`texts`), a .pt2 file all of them in `gapstone.json`.

        >>> file_metadata(open_model("photos.safetensors"))["labels"]
        ['cat', 'dog']

    gapstone       version that wrote the file
    labels         the class of each logit
    multi_label    true of a model that predicts any number of classes, each by the sigmoid of its logit; else absent
    preprocessing  channels, size, stored, mean, std (as in a model file), and the same as sentences
    backbone, head as in `gapstone train`
    maps           meaning; additive; bias (K,): maps.sum((2, 3)) + bias == logits where additive; placement: per axis
                   (y, x) where the cells lie in an image of `size`, cell i at start + stride · i, 0 the centre of the
                   first pixel
    """
    model = image_model.model
    metadata: dict[str, Any] = {
        "gapstone": __version__,
        "labels": list(image_model.labels),
        "preprocessing": {
            **image_model.preprocessing.to_json(),
            "recipe": [*_recipe(image_model.preprocessing), SIGMOID if image_model.multi_label else SOFTMAX],
        },
    }
    if image_model.multi_label:
        metadata["multi_label"] = True
    if isinstance(model, Classifier):
        metadata |= {"backbone": model.backbone, "head": model.head.spec}
    return metadata | ({"maps": _maps(image_model)} if maps else {})


def texts(metadata: dict[str, Any]) -> dict[str, str]:
    """Return the metadata as texts: a text unchanged, other values as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


def _maps(image_model: ImageModel) -> dict[str, Any]:
    size = image_model.preprocessing.size
    explained = explain(image_model.model, torch.zeros(1, image_model.preprocessing.channels, *size))
    return {
        "meaning": "what each cell adds to each logit, in logit units"
        if explained.additive
        else "gradient x activation at the last feature map, in logit units; does not add up to the logit",
        "additive": explained.additive,
        "bias": explained.bias.tolist(),
        "placement": {
            "size": list(size),
            "cells": list(explained.maps.shape[2:]),
            **{key: value for key, value in explained.placement.to_json().items() if key != "seen"},
        },
    }


def _recipe(p: Preprocessing) -> list[str]:
    height, width = p.size
    return [
        *(
            [f"Of values of more than 8 bits: {p.ranges} become 0…255, what is beyond is cut off."]
            if p.ranges != UNDECIDED
            else []
        ),
        "Turn the picture upright as its EXIF orientation says; "
        + {1: "convert it to gray.", 3: "convert it to sRGB."}.get(p.channels, f"take its {p.channels} channels."),
        _resizing(p),
        "Divide by 255, subtract mean, divide by std, per channel; channels first: float32 (N, "
        f"{p.channels}, {height}, {width}).",
    ]


def _resizing(p: Preprocessing) -> str:
    (h, w), (height, width), filter = p.stored, p.size, p.resizing.filter
    name = filter.upper()
    if p.resizing.crop == "exact":
        top, left = (h - height) // 2, (w - width) // 2
        keep = f"; then keep {height} rows from {top} and {width} columns from {left}" if p.stored != p.size else ""
        return (
            f"Cut the largest centred part of the shape {h}:{w} (height:width) and resize it to {h} rows of {w} pixels "
            f"with an antialiasing {filter} filter (Pillow: resize(({w}, {h}), {name}, box=part)){keep}."
        )
    sides = f"its shorter side has {h} pixels" if h == w else f"it covers {h} rows of {w} pixels"
    to = (
        f"to {h} rows of {w} pixels, whatever its proportions,"
        if p.resizing.crop == "squash"
        else f"in its proportions, so that {sides} and the other a whole number of them (torchvision: Resize),"
    )
    first = "floor" if p.resizing.crop == "whole pixels down" else "round"
    return (
        f"Resize it {to} with an antialiasing {filter} filter (Pillow: {name}); then keep its centred {height} rows "
        f"and {width} columns (torchvision: CenterCrop), the first of H rows being {first}((H - {height}) / 2)."
    )
