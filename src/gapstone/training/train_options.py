"""`TrainOptions`: what the user asks of a training, before anything is looked at."""

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from gapstone.console.options import at_least
from gapstone.data.groups import check_options
from gapstone.data.near_duplicates import check_threshold
from gapstone.data.split import Duplicates
from gapstone.data.split_shares import parse_shares
from gapstone.training.balance import Balance
from gapstone.training.loop import PrecisionChoice


@dataclass(frozen=True)
class TrainOptions:
    """The user's options for training; None means: choose automatically."""

    data: Any  # a path, or one of the objects that `open_source` opens
    backbone: str | None = None
    pretrained: bool = False
    from_scratch: bool = False
    """Random weights, even where trained ones are on this machine."""
    size: str | None = None
    limit: int | None = None
    epochs: int | None = None
    batch_size: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float | None = None
    weight_decay: float | None = None
    augment: Literal["auto", "none"] = "auto"
    precision: PrecisionChoice = "auto"
    device: str = "auto"
    balance: Balance = "none"
    duplicates: Duplicates = "group"
    duplicate_threshold: float | None = None
    group: str | None = None
    """The column that says which images belong together, such as those of one patient."""
    group_pattern: str | None = None
    """A regular expression that finds the same in the images' paths."""
    multi_label: bool = False
    """Images may have several labels, also where DATA does not show it (`open_source`)."""
    split: str | None = None
    """Shares of the images to train on, to validate and to test, such as "0.7/0.15/0.15" (`parse_shares`)."""
    patience: int | None = None
    """Epochs without a better validation accuracy after which the training of a whole network ends."""
    augmented: Any = None
    """A Dataset with random transforms, which training draws from (`open_source`)."""
    sample_weight: str | None = None
    """The column that says how much an image counts in training."""

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, patience=self.patience)
        at_least(2, limit=self.limit, batch_size=self.batch_size)
        if self.learning_rate is not None and not 0 < self.learning_rate < 100:
            raise ValueError(f"--learning-rate {self.learning_rate}: must be more than 0 and less than 100.")
        if self.weight_decay is not None and not 0 <= self.weight_decay < 1:
            raise ValueError(f"--weight-decay {self.weight_decay}: must be at least 0 and less than 1.")
        types = get_type_hints(TrainOptions)
        for name in ("optimizer", "augment", "precision", "balance", "duplicates"):
            if getattr(self, name) not in (allowed := get_args(types[name])):
                raise ValueError(f"--{name} {getattr(self, name)}: must be {' or '.join(allowed)}.")
        check_threshold(self.duplicate_threshold)
        check_options(self.group, self.group_pattern)
        if self.sample_weight is not None and self.balance != "none":
            raise ValueError(
                f"--sample-weight {self.sample_weight} and --balance {self.balance} both say what images count for: "
                f"give one of them."
            )
        if self.split is not None:
            parse_shares(self.split)
