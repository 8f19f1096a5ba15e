"""`CompareRequest`: what a comparison is asked for, before anything is looked at."""

import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from gapstone.comparing.chosen_metric import Asked, asked_metric
from gapstone.comparing.learning_curve import parse_curve
from gapstone.comparing.user_code import UserCode
from gapstone.console.formatting import display
from gapstone.data.boxes_voc import check_voc_folder
from gapstone.data.python_objects import described
from gapstone.heads import parse
from gapstone.storage.paths import check_input
from gapstone.training.choose_backbone import BackboneMode, mode_of
from gapstone.training.training_data import TrainOptions, at_least

Keep = Literal["best", "all", "none"]
"""Which trained models are kept: of each head its best trial, those of all trials, none."""
HEADS = ("gap", "gmp", "nin", "fc", "fc:grid=4")


@dataclass(frozen=True)
class CompareRequest:
    """The arguments of a comparison."""

    choices: TrainOptions
    heads: tuple[str, ...] = HEADS
    seeds: int = 5
    folds: int | None = None
    baseline: str | None = None
    metric: Asked = None
    """What decides the verdicts (gapstone.comparing.chosen_metric)."""
    workers: int | None = None
    boxes: Path | None = None
    """A table, file or folder of object boxes (gapstone.data.object_boxes)."""
    weights: Path | None = None
    """A file of weights that the backbone starts from (gapstone.models.backbone_weights)."""
    freeze: bool = False
    """Do not train the backbone: it runs once over the images, and only heads are trained."""
    curve: str | None = None
    """Numbers of labelled images of each class that accuracy is measured at, too: "5,10,30,100,all"; of images in all,
    where they have several labels."""
    finetune: bool = False
    """Train a backbone further that has trained weights, which is frozen otherwise."""
    quick: bool = False
    """Do not measure robustness to shifts and sizes, nor the heads' times."""
    user_code: UserCode | None = None
    """Networks, heads and pools of the user's own that trials need."""
    keep: Keep = "best"
    """Which trained models are kept."""
    margin: float | None = None
    """Differences of the metric up to it do not matter, in its unit as it is shown; None: the metric's own."""
    tune: bool = False
    """Choose learning rate and weight decay of networks that are trained whole on validation images, in each trial."""

    def checked(self) -> "CompareRequest":
        """The same with heads and baseline in canonical spelling. Raises ValueError for arguments that are wrong."""
        specs = [parse(head) for head in self.heads]
        for spec in specs:
            _ = spec.own_pools  # raises for a pool whose trials could not be known again
        heads = tuple(map(str, specs))
        if not heads:
            raise ValueError("--heads is empty: name at least one, such as gap.")
        if twice := [head for head in heads if heads.count(head) > 1]:
            raise ValueError(f"--heads names {twice[0]!r} twice.")
        baseline = str(parse(self.baseline)) if self.baseline else heads[0]
        if baseline not in heads:
            raise ValueError(f"--baseline {baseline!r} is not among --heads {','.join(heads)}.")
        metric = asked_metric(self.metric)
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise ValueError(f"--margin {self.margin:g}: must be more than 0, such as 1 for a percentage point.")
        at_least(1, seeds=self.seeds, workers=self.workers)
        at_least(2, folds=self.folds)
        for option, path in (("--boxes", self.boxes), ("--weights", self.weights)):
            if path is not None and option == "--boxes" and path.is_dir():
                check_voc_folder(f"{option} {display(path)}", path)
            elif path is not None:
                check_input(f"{option} {display(path)}", path)
        if self.weights is not None and self.choices.pretrained:
            raise ValueError(f"--weights {self.weights} and --pretrained: the backbone can start from one only.")
        _ = self.mode
        if self.keep not in get_args(Keep):
            raise ValueError(f"--keep {self.keep}: must be {' or '.join(get_args(Keep))}.")
        if self.curve is not None:
            parse_curve(self.curve)
            if self.folds:
                raise ValueError("--curve and --folds: the points of a curve need the same test images; take --seeds.")
        return replace(self, heads=heads, baseline=baseline, metric=metric)

    @property
    def mode(self) -> BackboneMode:
        """Whether the backbone is trained. Raises ValueError for options that contradict each other."""
        return mode_of(self.freeze, self.finetune, self.choices.from_scratch)

    def to_json(self) -> dict[str, Any]:
        """As plan.json holds it: paths as text, a function of the user's own by its name."""
        metric = asked_metric(self.metric)
        augmented = self.choices.augmented
        choices = replace(
            self.choices,
            data=described(self.choices.data),
            augmented=None if augmented is None else described(augmented),
        )
        facts = asdict(replace(self, choices=choices, metric=None, user_code=None)) | {
            "metric": None if metric is None else metric.name
        }
        del facts["user_code"]  # what it is, the names of backbone and heads say
        paths = {key: (path := getattr(self, key)) and where(str(path)) for key in ("boxes", "weights")}
        return facts | paths


def where(data: object) -> str:
    """The absolute path of DATA, as text; of an object, what it is called."""
    if not isinstance(data, str | os.PathLike) or data == "digits":
        return described(data)
    return os.fsencode(Path(data).expanduser().resolve()).decode("utf-8", "backslashreplace")
