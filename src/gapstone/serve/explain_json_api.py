"""The JSON document of /api/explain: a picture and each model's explanation of it (docs/serve.md)."""

import base64
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import gapstone
from gapstone.maps.explanation import Explanation
from gapstone.maps.open_model import ImageModel
from gapstone.serve.guard import SCHEMA
from gapstone.serve.read_picture import UploadedPicture

MOST_VALUES = 1 << 20  # values in all maps of a model, 5.6 MB as text: 1,000 classes of 32×32 cells
MOST_GRADIENTS = 50  # classes with maps, if each map needs a backward pass


class Explainer:
    """A model that is ready: its loops are compiled, and the number of classes with maps is known.

    >>> Explainer(open_model("photos.safetensors"), "photos.safetensors").document(0, picture)["classes"][0]["label"]
    'cat'
    """

    def __init__(self, opened: ImageModel, name: str) -> None:
        self.opened = opened
        self.name = name
        """The name that clients see."""
        height, width = opened.preprocessing.stored
        blank = np.zeros((height, width, opened.preprocessing.channels), np.uint8)
        blank_maps = opened.explain([blank], top_k=1)
        count = len(opened.labels)
        mapped = min(count, max(1, MOST_VALUES // blank_maps.maps[0, 0].numel()))
        if not blank_maps.additive or blank_maps.held:
            mapped = min(mapped, MOST_GRADIENTS)
        self._top_k = None if mapped == count else mapped
        opened.explain([blank], top_k=self._top_k)

    def about(self) -> dict[str, Any]:
        """Return the model's entry in /api/models."""
        preprocessing = self.opened.preprocessing
        return {
            "name": self.name,
            "labels": list(self.opened.labels),
            **self._several(),
            "size": list(preprocessing.size),
            "channels": preprocessing.channels,
        }

    def _several(self) -> dict[str, bool]:
        return {"multi_label": True} if self.opened.multi_label else {}

    def document(self, number: int, picture: UploadedPicture) -> dict[str, Any]:
        """Return the model's explanation of a picture; `number` is the index of this model's array in `picture.fitted`.

        Raises:
            ValueError: If logits or maps are not finite, which JSON cannot represent.
        """
        explained = self.opened.explain([picture.fitted[number]], top_k=self._top_k)
        if not all(bool(torch.isfinite(x).all()) for x in (explained.logits, explained.maps, explained.mean_map)):
            raise ValueError(f"{self.name} gives NaN or infinite logits for this picture: an error of the model.")
        scale, origin = self.opened.preprocessing.seen(*picture.size)
        return {
            "name": self.name,
            **self._several(),
            "additive": explained.additive,
            "held": list(explained.held),
            "placement": explained.placement.within(origin, scale).to_json(),
            "mean": _mean(explained),
            **_classes(explained, self.opened.labels),
        }


def response_document(
    picture: UploadedPicture, models: list[dict[str, Any]], seconds: dict[str, float]
) -> dict[str, Any]:
    """Return the whole document."""
    preview = picture.preview
    return {
        "schema": SCHEMA,
        "gapstone": gapstone.__version__,
        "picture": {
            "size": list(picture.size),
            "notes": list(picture.notes),
            "preview": preview and f"data:{preview[0]};base64,{base64.b64encode(preview[1]).decode('ascii')}",
        },
        "models": models,
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }


def _mean(explained: Explanation) -> dict[str, Any] | None:
    """Return the logit, bias and map that centred maps are without; None where classes do not compete."""
    if explained.shown() is explained:
        return None
    return {
        "logit": _round(float(explained.logits[0].double().mean())),
        "bias": _round(float(explained.bias.expand_as(explained.logits)[0].double().mean())),
        "base64": _base64(explained.mean_map[0].float().cpu().numpy()),
    }


def _base64(maps: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(maps, "<f4").tobytes()).decode("ascii")


def _classes(explained: Explanation, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return all classes, most probable first, and the maps of the first of them."""
    logits = explained.logits[0].double().cpu()
    probabilities = explained.probabilities[0].double().tolist()
    rows = {k: row for row, k in enumerate(explained.classes[0].tolist())}
    order = sorted(range(len(labels)), key=lambda k: (k not in rows, -float(logits[k]), k))
    mapped = order[: len(rows)]
    maps = explained.maps[0, [rows[k] for k in mapped]].float().cpu().numpy()
    completeness, bias = explained.completeness[0].tolist(), explained.bias.expand_as(explained.logits)[0].tolist()
    return {
        "classes": [
            {
                "index": k,
                "label": labels[k],
                "logit": _round(float(logits[k])),
                "probability": _round(probabilities[k]),
                "bias": _round(bias[k]),
                "completeness": _round(completeness[rows[k]]) if k in rows else None,
            }
            for k in order
        ],
        "maps": {
            "shape": list(maps.shape),
            "dtype": "<f4",
            "base64": _base64(maps),
        },
    }


def _round(value: float) -> float:
    """Round to the digits of a float32, which halves the size of the document."""
    return float(f"{value:.8g}")
