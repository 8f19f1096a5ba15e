"""Learning rates and weight decays that a trial is trained with, and the choice among them.

On a frozen backbone rates mean the same for every head: see `feature_scale`. Why these, why side by side, and why
validation loss chooses: docs/decisions/0030-tuned-within-each-trial.md.
"""

from dataclasses import dataclass, replace
from itertools import product

from gapstone.training.loop import TrainSettings
from gapstone.training.training_data import TrainOptions

RATES = (0.3, 1.0, 3.0, 10.0, 30.0)
DECAYS = (0.0, 1e-4)
OF_THE_RATE, OF_THE_DECAY = (0.3, 1.0, 3.0), (0.1, 1.0)
"""What --tune tries of a network that is trained whole, as shares of its own learning rate and weight decay."""
UNTUNED = (3.0, 1e-4)
"""Learning rate and weight decay where there are no validation images: of all points of the grid, the one whose loss
after the last epoch was least above the best."""


@dataclass(frozen=True)
class TuningGrid:
    """The candidates of one trial. The names of the fields are part of its id."""

    learning_rates: tuple[float, ...] = RATES
    weight_decays: tuple[float, ...] = DECAYS

    @property
    def points(self) -> list[tuple[float, float]]:
        """(learning rate, weight decay) of each candidate."""
        return list(product(self.learning_rates, self.weight_decays))

    def without_decays(self) -> "TuningGrid":
        """The part that is trained of a head whose pool learns: each of its candidates reads all maps in each epoch."""
        return TuningGrid(self.learning_rates, self.weight_decays[:1])


def tuned(options: TrainOptions, settings: TrainSettings, images: int) -> tuple[TrainSettings, TuningGrid]:
    """The settings and the grid of heads on a frozen backbone with `images` training images.

    A rate or decay that the user gives is the only candidate. The settings' own serve trials without validation images.
    """
    rate, decay = options.learning_rate, options.weight_decay
    epochs = options.epochs or epochs_on_features(images)
    settings = replace(
        settings,
        epochs=epochs,
        patience=epochs,  # the epoch is chosen; none is left out
        learning_rate=UNTUNED[0] if rate is None else rate,
        weight_decay=UNTUNED[1] if decay is None else decay,
    )
    return settings, TuningGrid(RATES if rate is None else (rate,), DECAYS if decay is None else (decay,))


def tuned_network(options: TrainOptions, settings: TrainSettings) -> TuningGrid:
    """The candidates of networks that are trained whole, under --tune; a rate or decay that the user gives is the only.

    >>> tuned_network(TrainOptions("digits", weight_decay=0.0), TrainSettings()).points
    [(0.015, 0.0), (0.05, 0.0), (0.15, 0.0)]
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    rates = (1.0,) if options.learning_rate is not None else OF_THE_RATE
    decays = (1.0,) if options.weight_decay is not None or not decay else OF_THE_DECAY
    return TuningGrid(tuple(_rounded(rate * share) for share in rates), tuple(_rounded(decay * s) for s in decays))


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")


def epochs_on_features(images: int) -> int:
    """Epochs that add up to about 37,500 images, between 5 and 24: half as many as a network needs from scratch.

    >>> epochs_on_features(300), epochs_on_features(3000), epochs_on_features(50000)
    (24, 12, 5)
    """
    return max(5, min(24, round(37_500 / max(images, 1))))


@dataclass(frozen=True)
class TuningChoice:
    """What a head, or a network, was trained with in one trial, and what it was chosen from."""

    learning_rate: float
    weight_decay: float
    epoch: int
    """Counted from 1."""
    epochs: int
    chosen: bool
    """On validation images; without any these are the values of `UNTUNED`, and the last epoch."""
    candidates: list[tuple[float, float, float | None]]
    """(learning rate, weight decay, validation loss in its best epoch; None where its numbers overflowed)."""
