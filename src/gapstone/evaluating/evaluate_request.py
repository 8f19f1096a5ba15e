"""The arguments of `gapstone evaluate`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from gapstone.comparing.chosen_metric import Asked, asked_metric
from gapstone.console.formatting import display
from gapstone.console.options import at_least
from gapstone.data.near_duplicates import check_threshold
from gapstone.data.split import Duplicates
from gapstone.maps.open_model import ImageModel
from gapstone.training.loop import Precision

Part = Literal["auto", "train", "val", "test", "all"]


@dataclass(frozen=True)
class EvaluateRequest:
    """Which models are evaluated on which images, and how."""

    models: tuple[str | ImageModel, ...]
    """Names, as `open_model` takes them, or models that are open."""
    data: Any
    """A path, or one of the objects that `gapstone.data.open_source` opens."""
    part: Part = "auto"
    """Of DATA: its test images; val where it gives no test images; all where it gives neither."""
    metric: Asked = None
    """What decides between models; None: chosen by how many images classes have."""
    limit: int | None = None
    weights: Path | None = None
    """Of the model that is a network's name."""
    device: str = "auto"
    precision: Precision = "float32"
    batch_size: int = 64
    workers: int | None = None
    """Processes that decode; None: one per core."""
    duplicates: Duplicates = "group"
    duplicate_threshold: float | None = None
    group: str | None = None
    """The column of a table that says which images belong together (`open_source`)."""
    group_pattern: str | None = None
    multi_label: bool = False
    """Images may have several labels, also where DATA does not show it (`open_source`)."""
    quick: bool = False
    """Neither move nor resize test images, nor time the models."""
    names: tuple[str, ...] = ()
    """Of the models, as they are shown; none: as short as tells them apart."""

    def checked(self) -> "EvaluateRequest":
        """The same, its metric found. Raises ValueError for what is wrong whatever the models and images are."""
        if not self.models:
            raise ValueError("no MODEL: name one or more, then DATA: gapstone evaluate model.safetensors photos/")
        given = [one if isinstance(one, str) else one.name for one in self.models]
        if twice := [name for name in self.names or given if (self.names or given).count(name) > 1]:
            raise ValueError(f"{display(twice[0])} is named twice: a model is compared with others.")
        for name, kind in (("split", Part), ("duplicates", Duplicates), ("precision", Precision)):
            if (value := self.part if name == "split" else getattr(self, name)) not in get_args(kind):
                raise ValueError(f"--{name} {display(str(value))}: must be {' or '.join(get_args(kind))}.")
        at_least(1, batch_size=self.batch_size, workers=self.workers)
        at_least(2, limit=self.limit)
        check_threshold(self.duplicate_threshold)
        return replace(self, metric=asked_metric(self.metric))
