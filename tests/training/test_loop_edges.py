"""The edges of training: a last batch of one image, ties of accuracy, the first step, and streams of random numbers."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from gapstone.images.augment import Augment, suit
from gapstone.training.loop import (
    TrainingError,
    TrainSettings,
    count_steps,
    epoch_trainer,
    shuffled,
    train_epochs,
    warm_cosine,
)


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(5, 2, [2, 2]), (6, 2, [2, 2, 2]), (7, 3, [3, 3]), (8, 3, [3, 3, 2]), (1, 4, [1]), (3, 8, [3]), (0, 4, [])],
)
def test_no_batch_of_one_image_unless_it_is_all_there_is(count, size, lengths):
    """Batch norm has no variance over one."""
    batches = list(shuffled(np.arange(count) + 10, size, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == lengths
    rows = np.concatenate(batches).tolist() if batches else []
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(range(10, 10 + count))


def test_all_images_have_their_turn():
    """A row that one epoch leaves out is in another."""
    epochs = (shuffled(np.arange(5), 2, np.random.default_rng(epoch)) for epoch in range(9))
    assert {int(row) for batches in epochs for batch in batches for row in batch} == set(range(5))


def test_the_rate_rises_from_the_first_step_and_ends_near_zero():
    factor = warm_cosine(20, 0.25)
    factors = [factor(step) for step in range(21)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])  # never 0: the first step learns, too
    assert factors[5] == 1.0
    assert factors[12] == pytest.approx(0.5 * (1 + np.cos(np.pi * 7 / 15)))
    assert factors[20] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(factors[5:]))
    assert factor(25) == pytest.approx(0, abs=1e-12)  # beyond the end it stays there
    assert warm_cosine(10, 0.0)(0) == 1.0
    assert warm_cosine(1, 0.15)(0) == 1.0
    assert warm_cosine(1, 1.0)(1) == 1.0


def test_steps_count_the_last_batch():
    assert count_steps(100, TrainSettings(epochs=3, batch_size=50)) == 6
    assert count_steps(101, TrainSettings(epochs=3, batch_size=50)) == 9


def test_the_first_step_is_taken_at_a_part_of_the_rate():
    """One number, pulled by a gradient of 1: it moves by the learning rate of each step, as its momentum has it."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    settings = TrainSettings(epochs=1, batch_size=1, learning_rate=0.1, weight_decay=0.0, warmup=0.5)
    moved = []

    def backward(inputs: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        moved.append(model.weight.item())
        loss = -model(inputs).sum()
        loss.backward()
        return loss

    x = torch.ones(1, 1)
    train_epoch = epoch_trainer(model, 4, lambda _: iter([(x, x[0])] * 4), backward, settings)
    assert train_epoch(1) == pytest.approx(-np.mean(moved))
    moved.append(model.weight.item())
    steps, momentum = np.diff(moved), 0.0
    for step, rate in zip(steps, (0.05, 0.1, 0.1, 0.05), strict=True):
        momentum = 0.9 * momentum + 1
        assert step == pytest.approx(rate * (1 + 0.9 * momentum), rel=1e-5)


def test_a_loss_that_is_no_number_names_its_epoch():
    model = nn.Linear(1, 1)

    def backward(inputs: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        loss = model(inputs).sum() * torch.inf
        loss.backward()
        return loss

    x = torch.ones(1, 1)
    train_epoch = epoch_trainer(model, 1, lambda _: iter([(x, x[0])]), backward, TrainSettings(epochs=1, batch_size=1))
    with pytest.raises(TrainingError, match="in epoch 7"):
        train_epoch(7)


class ScriptedTraining:
    """A training whose validation logits are given for every epoch; the weight is the number of the epoch."""

    def __init__(self, logits: list[list[list[float]]], labels: list[int]) -> None:
        self.model = nn.Linear(1, 1)
        self.logits, self.labels, self.epoch = [torch.tensor(rows) for rows in logits], torch.tensor(labels), 0

    def train_epoch(self, epoch: int) -> float:
        self.epoch = epoch
        nn.init.constant_(self.model.weight, epoch)
        return 1.0 / epoch

    def validate(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits[self.epoch - 1], self.labels


RIGHT, SURER, WRONG = [[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 3.0]], [[0.0, 0.1], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("answers", "best"),
    [
        ([RIGHT, SURER], 2),  # as many right: the lower loss
        ([SURER, RIGHT], 1),
        ([RIGHT, RIGHT, RIGHT], 1),  # nothing to choose: the first
        ([WRONG, RIGHT, WRONG], 2),
        ([WRONG, SURER, RIGHT, SURER], 2),
    ],
)
def test_ties_of_accuracy_go_to_the_lower_loss(answers, best):
    script = ScriptedTraining(answers, [0, 1])
    history = train_epochs(script.model, script.train_epoch, script.validate, TrainSettings(epochs=len(answers)), 0)
    assert history.best_epoch == best
    assert script.model.weight.item() == best  # and its weights are kept
    assert len(history.train_loss) == len(answers)


def test_accuracy_comes_before_the_loss():
    unsure, sure = [[0.1, 0.0], [0.0, 0.1]], [[5.0, 0.0], [0.0001, 0.0]]
    script = ScriptedTraining([sure, unsure], [0, 1])
    loss = [nn.functional.cross_entropy(torch.tensor(logits), torch.tensor([0, 1])).item() for logits in (sure, unsure)]
    assert loss[0] < loss[1]
    assert train_epochs(script.model, script.train_epoch, script.validate, TrainSettings(epochs=2), 0).best_epoch == 2


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_it_stops_after_so_many_epochs_without_a_better_one(patience):
    script = ScriptedTraining([RIGHT, SURER, *[RIGHT] * 8], [0, 1])
    history = train_epochs(
        script.model, script.train_epoch, script.validate, TrainSettings(epochs=10, patience=patience), 0
    )
    assert len(history.train_loss) == 2 + patience
    assert script.model.weight.item() == 2


def test_without_validation_it_never_stops_early():
    script = ScriptedTraining([RIGHT], [0, 1])
    history = train_epochs(script.model, script.train_epoch, None, TrainSettings(epochs=5, patience=1), 0)
    assert (history.best_epoch, script.model.weight.item(), len(history.train_loss)) == (5, 5, 5)


# ---- streams of random numbers


def numbered(size: int = 8, count: int = 50) -> np.ndarray:
    """Images of which every pixel says where it was."""
    image = np.arange(size * size, dtype=np.uint8).reshape(1, size, size, 1)
    return np.repeat(image, count, 0)


@pytest.mark.parametrize("moving", [{"crop": True}, {"shift": 2}])
def test_flips_leave_the_other_moves_as_they_are(moving):
    size = (8, 8) if "shift" in moving else (5, 5)
    plain = Augment(**moving)(numbered(), size, np.random.default_rng(3))
    both = Augment(flip=True, **moving)(numbered(), size, np.random.default_rng(3))
    flipped = np.array([not np.array_equal(a, b) for a, b in zip(plain, both, strict=True)])
    assert 10 < flipped.sum() < 40
    assert np.array_equal(both[flipped], plain[flipped][:, :, ::-1])


def test_crops_leave_the_flips_as_they_are():
    """And what is drawn afterwards from the same stream, too."""
    after = []
    for augment in (Augment(), Augment(flip=True), Augment(crop=True), Augment(flip=True, crop=True)):
        random = np.random.default_rng(3)
        augment(numbered(), (5, 5), random)
        after.append(random.random())
    assert len(set(after)) == 1
    still = Augment(flip=True)(numbered(), (5, 5), np.random.default_rng(3))
    moved = Augment(flip=True, crop=True)(numbered(), (5, 5), np.random.default_rng(3))
    mirrored = [np.sign(int(images[0, 1, 0]) - int(images[0, 0, 0])) for images in still]
    assert mirrored == [np.sign(int(images[0, 1, 0]) - int(images[0, 0, 0])) for images in moved]


def test_half_are_flipped_and_none_without_it():
    flipped = Augment(flip=True)(numbered(count=2000), (8, 8), np.random.default_rng(0))
    share = np.mean(flipped[:, 0, 0, 0] != 0)
    assert 0.45 < share < 0.55
    assert np.array_equal(Augment()(numbered(), (8, 8), np.random.default_rng(0)), numbered())


def test_shifts_are_for_images_of_the_size_that_is_seen():
    stored = numbered(9)
    # stored larger: the shift chooses among the parts there are, and repeats no border
    parts = Augment(shift=1)(stored, (8, 8), np.random.default_rng(0))
    assert {part.tobytes() for part in parts} == {
        stored[0, y : y + 8, x : x + 8].tobytes() for y in (0, 1) for x in (0, 1)
    }


def test_what_suits():
    assert suit(1, (28, 28), (32, 32)) == Augment(crop=True)
    assert suit(3, (40, 24), (40, 24)) == Augment(flip=True, shift=5)
    assert Augment().describe() == "none"
    assert Augment(flip=True, crop=True).describe() == "flips and random crops"
