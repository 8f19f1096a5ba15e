"""What a model file says of its model: backbone, head, labels and preprocessing, each checked when it is read."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gapstone import __version__
from gapstone.heads import parse
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.model_file import WRONG_WEIGHTS, ModelFileError, Shapes, kind
from gapstone.nets import TooManyParametersError, at_most
from gapstone.nets.hf_folder import LONGEST_KEPT, PREFIX, kept, short_name
from gapstone.nets.hf_model import create_hf, transformers_version
from gapstone.nets.on_meta import on_meta
from gapstone.nets.own_features import own_facts
from gapstone.nets.zoo import create_timm

SCHEMA = 1
"""Raised when a field of the file changes its meaning; files of another schema are refused."""

MULTI_LABEL_SCHEMA = 2
"""Of models that answer with any number of classes: gapstone before it knew these would have taken a softmax."""

LONGEST_SPEC = 200  # characters of a backbone or head

SLACK = 20_000_000  # parameters that a backbone may have beyond what a file holds, such as those of its own head


@dataclass(frozen=True)
class ModelDescription:
    """The arguments of a `Classifier`, as its file holds them."""

    backbone: str
    head: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    config: str | None = None
    """Of a backbone `hf:`: the configuration that makes it, so that its folder is not needed."""
    transformers: str | None = None
    """The version that the file was written with."""
    multi_label: bool = False
    """Each class has a probability of its own, and an image any number of classes."""
    own_backbone: str | None = None
    """Of a network of the user's own: its class and module. Only who gives it can open the file."""
    own_head: str | None = None
    """The same of a head."""

    @classmethod
    def of(
        cls,
        backbone: str,
        head: str,
        labels: tuple[str, ...],
        preprocessing: Preprocessing,
        config: str | None,
        multi_label: bool = False,
    ) -> "ModelDescription":
        """Of a model as it is."""
        made_with = None if config is None else transformers_version()
        name = backbone if config is None else short_name(backbone)
        own_backbone = own.source if (own := own_facts(backbone)) is not None else None
        own_head = parsed.source if (parsed := parse(head).own_head) is not None else None
        return cls(name, head, labels, preprocessing, config, made_with, multi_label, own_backbone, own_head)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": MULTI_LABEL_SCHEMA if self.multi_label else SCHEMA,
            "gapstone": __version__,
            "backbone": self.backbone,
            "head": self.head,
            "labels": list(self.labels),
            "preprocessing": self.preprocessing.to_json(),
            **({} if self.config is None else {"config": self.config, "transformers": self.transformers}),
            **({"multi_label": True} if self.multi_label else {}),
            **({"own_backbone": self.own_backbone} if self.own_backbone is not None else {}),
            **({"own_head": self.own_head} if self.own_head is not None else {}),
        }

    @classmethod
    def from_json(cls, about: Mapping[str, object]) -> "ModelDescription":
        """Read the JSON of a model file. Raises ModelFileError for another schema or a field that is not valid."""
        schema, version = about.get("schema"), about.get("gapstone")
        if type(schema) is not int or schema not in (SCHEMA, MULTI_LABEL_SCHEMA):
            newer = type(schema) is int and schema > MULTI_LABEL_SCHEMA
            raise ModelFileError(
                f"its schema is {kind(schema)} (written by gapstone {str(version)[:20]}); gapstone {__version__} reads "
                f"schema {SCHEMA} and {MULTI_LABEL_SCHEMA}: "
                + ("update it with pip install -U gapstone" if newer else "save the model again with this version")
            )
        multi_label = schema == MULTI_LABEL_SCHEMA
        if about.get("multi_label", False) is not multi_label:
            raise ModelFileError(
                f"its multi_label is {kind(about.get('multi_label'))}, and schema {schema} is of "
                f"{'any number of classes' if multi_label else 'one class'} for each image; save the model again"
            )
        backbone, head = (_name(about, field) for field in ("backbone", "head"))
        labels, preprocessing = about.get("labels"), about.get("preprocessing")
        if not isinstance(labels, list):
            raise ModelFileError(f"its labels are {kind(labels)}, not a list of names; save the model again")
        if not isinstance(preprocessing, dict):
            raise ModelFileError(f"its preprocessing is {kind(preprocessing)}, not an object; save the model again")
        try:
            prepared = Preprocessing.from_json(preprocessing)
            names, configuration = checked_labels(labels), _configuration(backbone, about)
            own = (None if about.get(field) is None else _name(about, field) for field in ("own_backbone", "own_head"))
            return cls(backbone, head, names, prepared, *configuration, multi_label, *own)
        except ModelFileError:
            raise
        except (ValueError, OverflowError) as error:
            raise ModelFileError(f"its description cannot be: {str(error)[:300]}; save the model again") from error

    def check_tensors(self, shapes: Shapes) -> None:
        """Compare a file's tensors with those of the foreign network it names, before that network is built.

        Building it takes seconds, as its feature maps are measured at several sizes. A network with far more parameters
        than the file holds is refused before its tensors are listed. gapstone's own backbones pass unchecked.

        Raises:
            ModelFileError: the tensors are not those of the network.
        """
        if not self.backbone.startswith(("timm:", PREFIX)):
            return
        parameters = sum(math.prod(shape) for _, shape in shapes.values())
        try:
            with on_meta(), at_most(4 * parameters + SLACK):
                net = self._network()
        except ImportError:
            raise
        except TooManyParametersError:
            raise ModelFileError(
                f"{WRONG_WEIGHTS}: it holds {parameters:,} numbers, and {self.backbone} has many more; save it again"
            ) from None
        except Exception as error:
            raise ModelFileError(f"its model cannot be built: {error} (backbone {self.backbone!r})") from error
        expected = {f"features.net.{name}": tuple(t.shape) for name, t in net.state_dict().items()}
        for name, (_, shape) in shapes.items():
            if name.startswith("features.") and expected.get(name) != shape:
                made = f" of transformers {self.transformers}" if self.transformers else ""
                raise ModelFileError(
                    f"{WRONG_WEIGHTS}: {name[:100]} {list(shape)} does not belong to {self.backbone}{made}; save it "
                    f"again"
                )

    def _network(self) -> nn.Module:
        if self.config is not None:
            return create_hf(self.config, self.backbone)
        net: nn.Module = create_timm(self.backbone.removeprefix("timm:"), self.preprocessing.channels, pretrained=False)
        return net


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as a tuple. Raises ValueError unless they are two or more different strings."""
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels must be names, such as ('cat', 'dog'), not {str(labels)[:60]}")
    if len(labels) < 2:
        raise ValueError(f"a classifier needs at least two labels and got {len(labels)}")
    if len(set(labels)) < len(labels):
        label, _ = Counter(labels).most_common(1)[0]
        raise ValueError(f"label {label!r} is given twice; each logit needs a name of its own")
    return tuple(labels)


def _configuration(backbone: str, about: Mapping[str, object]) -> tuple[str | None, str | None]:
    """(configuration, version of transformers) of a backbone `hf:`. Raises ModelFileError for one that is not valid."""
    config, version = about.get("config"), about.get("transformers")
    if not backbone.startswith(PREFIX):
        return None, None
    if not isinstance(config, str) or not isinstance(version, str) or len(version) > LONGEST_SPEC:
        raise ModelFileError(f"its config is {kind(config)}, and a backbone hf: needs the text of one; save it again")
    try:
        given = json.loads(config) if len(config) <= LONGEST_KEPT else None
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or kept(given) != config:
        raise ModelFileError("its config is no configuration as gapstone writes it; save the model again")
    return config, version


def _name(about: Mapping[str, object], field: str) -> str:
    value = about.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_SPEC:
        raise ModelFileError(f"its {field} is {kind(value)}, not a name; save the model again")
    return value
