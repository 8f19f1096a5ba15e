"""Ask a model that `gapstone export` wrote, without gapstone and without torch.

    pip install onnxruntime numpy pillow
    python onnx_client.py photos.onnx a.jpg b.jpg

Prints one JSON document: per image the label, its probability, all probabilities, and where the evidence for the label
lies: the cell of the map that adds most to its logit, as a pixel of the image. All that it needs to know stands in the
file's metadata. Pictures are taken to be sRGB or gray, of 8 bits.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

Pair = tuple[float, float]


def prepare(image: Image.Image, p: dict) -> tuple[np.ndarray, Pair, Pair]:
    """What the network sees, (1, C, H, W) float32; the image's pixels per pixel of it, and its corner there: (y, x)."""
    image = ImageOps.exif_transpose(image).convert("L" if p["channels"] == 1 else "RGB")
    (rows, columns), (height, width) = p["stored"], p["size"]
    how = p.get("resizing", {"filter": "bicubic", "crop": "exact"})
    resample = Image.Resampling[how["filter"].upper()]
    size = image.height, image.width
    if how["crop"] == "exact":  # the largest centred part of these proportions, to fractions of a pixel
        scale = min(size[0] / rows, size[1] / columns)
        top, left = (size[0] - rows * scale) / 2, (size[1] - columns * scale) / 2
        part = (max(left, 0), max(top, 0), min(size[1] - left, size[1]), min(size[0] - top, size[0]))
        if size != (rows, columns):
            image = image.resize((columns, rows), resample, box=part)
        y, x = (rows - height) // 2, (columns - width) // 2
        scales, corner = (scale, scale), (top + y * scale, left + x * scale)
    else:  # the whole image, then its centre to whole pixels
        if how["crop"] == "squash":
            whole = rows, columns
        elif rows == columns:
            short = min(size)
            whole = (rows, int(rows * size[1] / short)) if size[0] == short else (int(rows * size[0] / short), rows)
        else:
            larger = max(rows / size[0], columns / size[1])
            whole = round(size[0] * larger), round(size[1] * larger)
        image = image.resize((whole[1], whole[0]), resample)
        half = math.floor if how["crop"] == "whole pixels down" else round
        y, x = half((whole[0] - height) / 2), half((whole[1] - width) / 2)
        scales = size[0] / whole[0], size[1] / whole[1]
        corner = y * scales[0], x * scales[1]
    seen = np.asarray(image).reshape(image.height, image.width, p["channels"])[y : y + height, x : x + width]
    normalised = (seen / 255 - np.array(p["mean"])) / np.array(p["std"])
    return normalised.transpose(2, 0, 1)[None].astype(np.float32), scales, corner


def main(model: str, files: list[str]) -> None:
    session = onnxruntime.InferenceSession(model)
    facts = session.get_modelmeta().custom_metadata_map
    labels, preprocessing = json.loads(facts["labels"]), json.loads(facts["preprocessing"])
    answers = []
    for name in files:
        with Image.open(name) as image:
            pixels, scales, corner = prepare(image, preprocessing)
        logits, *maps = (output[0] for output in session.run(None, {"images": pixels}))
        best, answer = int(logits.argmax()), {"name": Path(name).name}
        if facts.get("multi_label") == "true":  # each class by itself: any number of labels
            probabilities = 1 / (1 + np.exp(-logits))
            answer["labels"] = [labels[k] for k in np.argsort(-logits) if logits[k] >= 0]
        else:
            odds = np.exp(logits - logits.max())
            probabilities = odds / odds.sum()
            answer |= {"label": labels[best], "probability": float(probabilities[best])}
        answer["probabilities"] = dict(zip(labels, map(float, probabilities), strict=True))
        if maps:
            about = json.loads(facts["maps"])
            cell = np.unravel_index(int(maps[0][best].argmax()), maps[0][best].shape)
            place = about["placement"]
            centre = [start + step * i for start, step, i in zip(place["start"], place["stride"], cell, strict=True)]
            y, x = (edge + (c + 0.5) * k - 0.5 for edge, c, k in zip(corner, centre, scales, strict=True))
            answer["evidence"] = {"x": round(x), "y": round(y), "adds": float(maps[0][best][cell])}
        answers.append(answer)
    print(json.dumps({"model": Path(model).name, "images": answers}, indent=1))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python onnx_client.py MODEL.onnx IMAGE…")
    main(sys.argv[1], sys.argv[2:])
