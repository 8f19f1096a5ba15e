"""Maps as files for programs: documented JSON, and npz.

The JSON, schema 1 (strict: no NaN; ASCII only, as `json.dumps` writes it):

    {"schema": 1,
     "model": "photos.safetensors",           as it was given, or null
     "pictures": [{
       "name": "a.jpg",                       or null
       "size": [480, 640],                    height, width in pixels, turned upright
       "placement": {"stride": [20.0, 20.0],  y before x: cell i has its centre at start + stride · i,
                     "start": [0.0, 80.0],    in pixels, 0 the centre of the first
                     "seen": [[0, 480], [80, 560]],   edges of what the network saw, 0 the first pixel's outer edge
                     "exact": true},          false: the cells share what was seen in equal parts
       "reference": null,                     what was subtracted from logit, bias and map: "the mean of all classes"
       "npz": "a.npz",                        only if asked for: the file that holds the maps
       "classes": [{
         "index": 3, "label": "cat",
         "logit": 4.1, "probability": 0.93,
         "bias": 0.2,                         additive: sum(map) + bias = logit
         "positive": 5.0, "negative": -1.1,   the two parts of sum(map)
         "additive": true, "held": [],         what is a number of the picture: "the norm's standard deviation"
         "completeness": 1e-6,                |sum(map) + bias − logit|
         "map": [[…], …],                     h × w, each cell's part of the logit; null where "npz" holds it
         "boxes": [{"x0": 3.0, "y0": 8.0, "x1": 90.0, "y1": 70.0,   only if asked for; pixels, x1 and y1 the far edges
                    "area": 4020, "peak": 0.9, "share": 0.95}]   pixels of the component, its highest value, its part
                                                               of all positive evidence
       }]}]}
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gapstone.console.formatting import display
from gapstone.drawing.evidence import Evidence
from gapstone.tracing.placement import Placement

if TYPE_CHECKING:
    from gapstone.localisation.cam_boxes import Box

SCHEMA = 1
PER_CLASS = ("index", "label", "logit", "probability", "bias", "completeness", "additive")
"""Fields of Evidence that an npz holds as an array (K,)."""


def to_json(
    evidences: Sequence[Evidence],
    *,
    name: str | None = None,
    model: str | None = None,
    boxes: Mapping[int, Sequence["Box"]] | None = None,
    npz: str | None = None,
) -> dict[str, Any]:
    """One picture's classes as a document of the schema above, ready for `json.dumps(…, allow_nan=False)`.

    boxes: for each class index, its boxes. npz: the name of the file that holds the maps; they are left out here.
    """
    first = _of_one_picture(evidences)
    picture: dict[str, Any] = {
        "name": None if name is None else _text(name),
        "size": list(first.size),
        "placement": first.placement.to_json(),
        "reference": None if first.reference is None else _text(first.reference),
    }
    if npz is not None:
        picture["npz"] = npz
    picture["classes"] = [_class(e, npz is None, None if boxes is None else boxes.get(e.index, ())) for e in evidences]
    return {"schema": SCHEMA, "model": None if model is None else _text(model), "pictures": [picture]}


def join(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The pictures of several documents of one model, in their order, as one document."""
    models = {document["model"] for document in documents}
    if len(models) != 1:
        raise ValueError(f"join(documents of {len(models)} models): one document is about one model; give at least one")
    return {
        "schema": SCHEMA,
        "model": models.pop(),
        "pictures": [picture for document in documents for picture in document["pictures"]],
    }


def _class(evidence: Evidence, with_map: bool, boxes: Sequence["Box"] | None) -> dict[str, Any]:
    evidence.check_finite()
    entry: dict[str, Any] = {"index": evidence.index, "label": _text(evidence.label)}
    entry |= {
        key: _finite(value, key, evidence)
        for key, value in {
            "logit": evidence.logit,
            "probability": evidence.probability,
            "bias": evidence.bias,
            "positive": evidence.positive,
            "negative": float(evidence.map.clip(max=0).sum()),
        }.items()
    }
    entry["additive"] = evidence.additive
    entry["held"] = list(evidence.held)
    entry["completeness"] = _finite(evidence.completeness, "completeness", evidence)
    # the shortest decimal that reads back as the same float32
    entry["map"] = [[float(str(np.float32(v))) for v in row] for row in evidence.map] if with_map else None
    if boxes is not None:
        entry["boxes"] = [box._asdict() for box in boxes]
    return entry


def _of_one_picture(evidences: Sequence[Evidence]) -> Evidence:
    if not evidences:
        raise ValueError("nothing to write: give the Evidence of at least one class")
    first = evidences[0]
    if any(e.reference != first.reference for e in evidences):
        raise ValueError("the maps had different things subtracted: write those of one `reference` together")
    if any((e.size, e.placement, e.map.shape) != (first.size, first.placement, first.map.shape) for e in evidences):
        raise ValueError("maps of several pictures: give the classes of one picture, and `join` what comes of it")
    return first


def _text(text: str) -> str:
    """Bytes of a file name that are no UTF-8 as escapes: no JSON reader takes half a surrogate pair."""
    return text if text.encode("utf-8", "replace").decode("utf-8") == text else display(text)


def _finite(value: float, key: str, evidence: Evidence) -> float:
    if not math.isfinite(value):
        raise ValueError(
            f"the {key} of {evidence.label!r} is {value}: an error of the model, which overflows on this picture"
        )
    return float(value)


def save_npz(path: str | Path | BinaryIO, evidences: Sequence[Evidence]) -> None:
    """One picture's classes: `map` (K, h, w), `logit` (K,), …, and `stride`, `start`, `seen`, `exact`, `size` once.

    `reference` (0 or 1 texts) is what was subtracted.
    """
    first = _of_one_picture(evidences)
    if any(text.endswith("\0") for text in (first.reference or "", *(e.label for e in evidences))):
        raise ValueError("a label ends in NUL, which numpy drops; rename the class")
    per_class: dict[str, Any] = {name: np.array([getattr(e, name) for e in evidences]) for name in PER_CLASS}
    # opened here: np.savez would add .npz to a name that ends otherwise
    with open(path, "wb") if isinstance(path, str | Path) else nullcontext(path) as file:
        np.savez_compressed(
            file,
            schema=SCHEMA,
            **per_class,
            held=np.array(first.held, np.str_),
            reference=np.array([] if first.reference is None else [first.reference], np.str_),
            map=np.stack([e.map for e in evidences]),
            size=np.array(first.size, np.int64),
            stride=np.array(first.placement.stride, np.float64),
            start=np.array(first.placement.start, np.float64),
            seen=np.array(first.placement.seen, np.float64),
            exact=first.placement.exact,
        )


def load_npz(path: str | Path) -> list[Evidence]:
    """What `save_npz` saved. No pickle: nothing in the file runs."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    placement = Placement(
        tuple(arrays["stride"].tolist()),
        tuple(arrays["start"].tolist()),
        tuple((low, high) for low, high in arrays["seen"].tolist()),
        bool(arrays["exact"]),
    )
    height, width = arrays["size"].tolist()
    return [
        Evidence(
            **{name: arrays[name][k].item() for name in PER_CLASS},
            map=arrays["map"][k],
            placement=placement,
            size=(height, width),
            held=tuple(arrays["held"].tolist()) if "held" in arrays else (),  # before it was kept, nothing was
            reference=next(iter(arrays["reference"].tolist()), None) if "reference" in arrays else None,  # so here
        )
        for k in range(len(arrays["index"]))
    ]
