"""Heads on cached features: candidates trained side by side are those trained one by one, and validation chooses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gapstone.comparing import shared_space
from gapstone.comparing.feature_cache import CachedPredictor, FeatureCache, RowCache, stored_vectors
from gapstone.comparing.feature_scale import FeatureScale
from gapstone.comparing.head_copies import HeadCopies
from gapstone.comparing.linear_sgd import LinearDescent
from gapstone.comparing.predictor import STILL
from gapstone.comparing.sample_space import SampleSpace
from gapstone.comparing.shared_answers import remove_shared, shared
from gapstone.comparing.shared_space import SharedSpace
from gapstone.comparing.trained_inputs import TrainedInputs
from gapstone.comparing.tune_head import tune_head
from gapstone.comparing.tuning import TuningGrid, tuned
from gapstone.heads import Head
from gapstone.images.preprocessing import Preprocessing
from gapstone.tracing.placement import Placement
from gapstone.training.balance import class_weights
from gapstone.training.loop import TrainingError, TrainSettings, count_steps, shuffled, warm_cosine
from gapstone.training.training_data import TrainOptions

IMAGES, CHANNELS, CELLS, CLASSES = 96, 5, (3, 2), 3
TRAIN, VALIDATION, TEST = np.arange(48), np.arange(48, 72), np.arange(72, 96)
LABELS = np.arange(IMAGES) % CLASSES
SETTINGS = TrainSettings(epochs=3, batch_size=16)
POINTS = [(0.5, 0.0), (2.0, 0.05)]
UNEQUAL = torch.tensor([0.3, 1.2, 4.0])
"""What the images of each class count for."""
HEADS = ("gap", "catavgmax", "nin", "fc", "fc:grid=2", "gap:norm=batch")
OTHERS = ("gap:4:norm=batch", "gap:4", "gem:p=learned", "avgmax:dropout=0.3", "nin:4", "attention:queries=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cached")


def cached(folder, spec, labels=LABELS, change=lambda maps: maps):
    """A head that is not trained yet, on cached maps of which a class raises a channel."""
    rng = np.random.default_rng(0)
    maps = rng.gamma(1.0, 1.0, (IMAGES, CHANNELS, *CELLS)).astype(np.float32)
    maps[np.arange(IMAGES), LABELS] += rng.gamma(0.7, 1.0, (IMAGES, *CELLS))
    maps = change(maps)
    path, pooled = folder / f"maps{len(list(folder.iterdir()))}.npy", {}
    np.save(path, maps)
    stored, pools = stored_vectors([spec])
    if stored:
        vectors = torch.stack([pools[vector.name](torch.from_numpy(maps)) for vector in stored], 1)
        np.save(path.with_suffix(".pooled.npy"), vectors.numpy())
        pooled = {STILL: RowCache(path.with_suffix(".pooled.npy"), np.arange(IMAGES))}
    placement = Placement.even(CELLS, (6, 4))
    kept = {STILL: RowCache(path, np.arange(IMAGES))}
    cache = FeatureCache(kept, kept[STILL], pooled, stored, CHANNELS, None, CELLS, False, placement, frozenset(), 0, 0)
    torch.manual_seed(0)
    head = Head(spec, CHANNELS, CLASSES, CELLS)
    preprocessing = Preprocessing(3, (6, 4), (6, 4), (0.5,) * 3, (0.5,) * 3)
    return CachedPredictor(head, cache, preprocessing, labels, "cpu", SETTINGS.batch_size)


def trained(predictor, train=TRAIN, validation=VALIDATION, grid=None, **settings):
    chosen = replace(SETTINGS, **settings)
    return tune_head(predictor, train, validation, chosen, grid or TuningGrid(), seed=0)


def reference_loss(logits, labels, weights):
    """By autograd; of several labels each class's own loss, summed."""
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels, weights)
    weight = None if weights is None else torch.where(labels, weights[1], weights[0])
    return F.binary_cross_entropy_with_logits(logits, labels.float(), weight) * CLASSES


def one_by_one(predictor, images, rate, decay, weights=None, begin=None):
    """One candidate by torch's optimizer: the logits of all images."""
    read = next(images.batches([np.arange(IMAGES)]))[0].clone()
    scale = FeatureScale.of([read[TRAIN].flatten(0, -2)])
    x = (read - scale.mean) * scale.factor
    layer = nn.Linear(x.shape[-1], CLASSES)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, float(x.dim() == 3))
    if begin is not None:
        layer.bias.data.copy_(begin)

    def logits(rows):
        answers = layer(x[rows])
        return answers.relu().mean(1) if x.dim() == 3 else answers

    groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(count_steps(len(TRAIN), SETTINGS), 0.15))
    for _ in range(SETTINGS.epochs):
        for rows in images.parts(TRAIN):
            optimizer.zero_grad()
            reference_loss(logits(rows), torch.from_numpy(predictor.labels[rows]), weights).backward()
            optimizer.step()
            schedule.step()
    return logits(np.arange(IMAGES)).detach()


@pytest.mark.parametrize(("spec", "weights"), [*((head, None) for head in HEADS), ("gap", UNEQUAL), ("nin", UNEQUAL)])
def test_all_candidates_at_a_time_are_each_of_them_by_torchs_sgd(folder, spec, weights):
    predictor = cached(folder, spec)
    images = TrainedInputs(predictor, np.arange(IMAGES), whole=False)
    images.fix_norm(TRAIN)
    run = LinearDescent(CLASSES, images.scale(TRAIN), POINTS, SETTINGS, len(TRAIN), images.form == "cells", weights)
    for _ in range(SETTINGS.epochs):
        run.train_epoch(images.batches(images.parts(TRAIN)))
    everything = next(images.batches([np.arange(IMAGES)]))[0]
    for number, point in enumerate(POINTS):
        expected = one_by_one(predictor, images, *point, weights)
        torch.testing.assert_close(run.logits(everything)[number], expected, atol=1e-5, rtol=1e-5)
        run.take(number)(predictor.head)
        torch.testing.assert_close(predictor.logits(np.arange(IMAGES)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("spec", "weights"), [("gap", None), ("fc", UNEQUAL), ("nin", None), ("nin", UNEQUAL), ("gap:norm=batch", None)]
)
def test_copies_of_a_linear_head_take_the_same_steps(folder, spec, weights):
    predictor = cached(folder, spec)
    whole = spec == "nin"
    images, maps = (TrainedInputs(predictor, np.arange(IMAGES), whole=part) for part in (False, True))
    images.fix_norm(TRAIN)
    linear = LinearDescent(CLASSES, images.scale(TRAIN), POINTS, SETTINGS, len(TRAIN), images.form == "cells", weights)
    with torch.no_grad():  # `LinearDescent` begins there
        [layer for layer in predictor.head.modules() if hasattr(layer, "bias")][-1].bias.fill_(float(whole))
    copies = HeadCopies(predictor.head, maps.scale(TRAIN), POINTS, SETTINGS, len(TRAIN), whole, weights)
    for _ in range(SETTINGS.epochs):
        losses = [run.train_epoch(read.batches(read.parts(TRAIN))) for run, read in ((linear, images), (copies, maps))]
        torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-4)
    for number in range(len(POINTS)):
        logits = []
        for run in (linear, copies):
            run.take(number)(predictor.head)
            logits.append(predictor.logits(TEST))
        torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", ["fc", "fc:grid=2"])
@pytest.mark.parametrize("weights", [None, UNEQUAL])
@pytest.mark.parametrize("space_of", [SampleSpace, SharedSpace])
def test_a_wide_layer_takes_the_same_steps_in_the_space_of_its_images(folder, weights, space_of, spec, monkeypatch):
    monkeypatch.setattr(shared_space, "BLOCK", 40)
    predictor, few, others = cached(folder, spec), np.array([40, 3, 7, 31, 16, 22, 5, 44, 9]), np.array([70, 60, 50])
    settings = replace(SETTINGS, batch_size=4)
    plain, given = (TrainedInputs(predictor, np.union1d(few, others), whole=False) for _ in range(2))
    space = space_of(given, few, given.scale(few))
    scales = plain.scale(few), space
    runs = [LinearDescent(CLASSES, scale, POINTS, settings, len(few), weights=weights) for scale in scales]
    for epoch in range(3):
        order = list(shuffled(few[[*range(9), 3, 3]], 4, np.random.default_rng(epoch)))  # drawn: some more than once
        losses = [run.train_epoch(read.batches(order)) for run, read in zip(runs, (plain, space), strict=True)]
        torch.testing.assert_close(*losses, atol=1e-6, rtol=1e-5)
    tested = [run.logits(next(read.batches([others]))[0]) for run, read in zip(runs, (plain, space), strict=True)]
    torch.testing.assert_close(*tested, atol=1e-5, rtol=1e-5)
    assert tested[0].abs().max() > 0.1
    for number in range(len(POINTS)):
        logits = []
        for run in runs:
            run.take(number)(predictor.head)
            logits.append(predictor.logits(TEST))
        torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)


def test_the_space_of_the_images_is_taken_where_it_saves_work(folder):
    def smaller(spec, images, products=10**6):
        return SampleSpace.is_smaller(TrainedInputs(cached(folder, spec), np.arange(images), whole=False), products)

    assert smaller("fc", 15)  # of 30 numbers each
    assert not smaller("fc", 16)
    assert not smaller("fc", 15, products=14)
    assert not smaller("nin", 1)  # its cells are more than its numbers
    assert not smaller("gap", 1)  # few numbers


def test_the_space_of_all_images_is_taken_where_it_saves_work(folder):
    def smaller(spec, products, change=lambda maps: maps):
        images = TrainedInputs(cached(folder, spec, change=change), np.arange(40), whole=False)
        return SharedSpace.is_smaller(images, products)

    def wide(maps):
        return np.tile(maps, (1, 1, 3, 3))  # 270 numbers, for 96 images

    assert smaller("fc", 12, wide)
    assert not smaller("fc", 11, wide)
    assert not smaller("fc", 12)  # 30 numbers
    assert not smaller("fc:norm=batch", 12, wide)  # each number has a scale of its own
    assert not smaller("nin", 12, wide)
    assert not smaller("gap", 12, wide)


@pytest.mark.parametrize("spec", ["gem:p=learned", "lse:4:r=learned", "gem:p=learned:norm=batch"])
def test_a_learned_pool_is_tuned_as_without_its_table(folder, spec, monkeypatch):
    both = []
    for fits in (True, False):
        monkeypatch.setattr(TrainedInputs, "_table_fits", lambda self, fits=fits: fits)
        predictor = cached(folder, spec)
        both.append((*trained(predictor), predictor.logits(TEST), dict(predictor.head.pools.named_parameters())))
        files = list(
            (predictor.cache.maps[STILL].path.parent / "shared").glob(f"{predictor.cache.maps[STILL].path.stem}-*")
        )
        assert bool(files) == fits
    (mine, choice, logits, learned), (theirs, other, expected, right) = both
    assert mine.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-3)
    assert (choice.learning_rate, choice.epoch) == (other.learning_rate, other.epoch)
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(learned, right, atol=1e-3, rtol=1e-3)


def test_trials_take_what_others_have_made_of_the_maps(folder, monkeypatch):
    path, made = folder / "some.npy", torch.arange(6.0).view(2, 3)
    assert torch.equal(shared(path, "answers", lambda: made), made)
    assert torch.equal(shared(path, "answers", lambda: pytest.fail("made twice")), made)
    assert torch.equal(shared(path, "others", lambda: made + 1), made + 1)
    remove_shared(folder)
    assert torch.equal(shared(path, "answers", lambda: made + 2), made + 2)
    assert [each.name for each in (folder / "shared").iterdir()] == ["some-answers.npy"]


def test_a_wide_head_is_tuned_as_without_that_space(folder, monkeypatch):
    few = TRAIN[:12], VALIDATION[:3]
    asked, both = [], []
    is_smaller = SampleSpace.is_smaller
    for allowed in (True, False):

        def smaller(images, products, allowed=allowed):
            asked.append((products, is_smaller(images, products)))
            return allowed and asked[-1][1]

        monkeypatch.setattr(SampleSpace, "is_smaller", smaller)
        predictor = cached(folder, "fc")
        both.append((*trained(predictor, *few), predictor.logits(TEST)))
    (mine, choice, logits), (theirs, other, expected) = both
    assert asked == [(10 * CLASSES * SETTINGS.epochs, True)] * 2  # the first way was taken, then the other
    assert mine.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-4)
    assert (choice.learning_rate, choice.epoch) == (other.learning_rate, other.epoch)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", [*HEADS, *OTHERS])
def test_the_least_validation_loss_is_what_the_head_ends_with(folder, spec):
    predictor = cached(folder, spec)
    history, choice = trained(predictor)
    losses = [loss for *_, loss in choice.candidates]
    assert len(losses) == (5 if spec in ("gem:p=learned", "attention:queries=2") else 10)
    rate, decay, least = min(choice.candidates, key=lambda candidate: candidate[2])
    assert (choice.learning_rate, choice.weight_decay, choice.chosen) == (rate, decay, True)
    assert history.validation_loss[choice.epoch - 1] == pytest.approx(least)
    assert choice.epoch == history.best_epoch <= choice.epochs == len(history.train_loss) == SETTINGS.epochs
    logits, labels = predictor.logits(VALIDATION), torch.from_numpy(LABELS[VALIDATION])
    assert F.cross_entropy(logits.double(), labels).item() == pytest.approx(least, abs=1e-5)
    assert history.validation_accuracy[choice.epoch - 1] == (logits.argmax(1) == labels).double().mean()
    assert least < np.log(CLASSES) - 0.02


@pytest.mark.parametrize("spec", ["gap", "nin", "gem:p=learned"])
def test_no_choice_moves_with_test_labels_or_test_images(folder, spec):
    first = cached(folder, spec)
    before = trained(first)[1]
    labels = LABELS.copy()
    labels[TEST] = np.random.default_rng(1).permutation(LABELS[TEST])
    assert not np.array_equal(labels, LABELS)

    def other_test_images(maps):
        maps[TEST] = 7.0
        return maps

    for other in (cached(folder, spec, labels), cached(folder, spec, labels, other_test_images)):
        assert trained(other)[1] == before
        for name, tensor in first.head.state_dict().items():
            assert torch.equal(tensor, other.head.state_dict()[name])
    labels[VALIDATION] = (labels[VALIDATION] + 1) % CLASSES
    assert trained(cached(folder, spec, labels))[1] != before


@pytest.mark.parametrize("spec", ["gap", "nin", "gap:4"])
def test_the_scale_of_the_features_changes_nothing(folder, spec):
    plain, scaled = cached(folder, spec), cached(folder, spec, change=lambda maps: 64 * maps + 16)
    (mine, choice), (theirs, other) = trained(plain), trained(scaled)
    assert mine.train_loss == pytest.approx(theirs.train_loss, abs=1e-4)
    assert (choice.learning_rate, choice.weight_decay, choice.epoch) == (
        other.learning_rate,
        other.weight_decay,
        other.epoch,
    )
    torch.testing.assert_close(plain.logits(TEST), scaled.logits(TEST), atol=1e-3, rtol=1e-3)


def test_features_that_are_all_the_same_are_left_alone(folder):
    predictor = cached(folder, "gap", change=lambda maps: np.full_like(maps, 3.0))
    _, choice = trained(predictor)
    assert predictor.head.classifier[-1].weight.abs().max() == 0
    assert choice.candidates[0][2] == pytest.approx(np.log(CLASSES), abs=0.01)


@pytest.mark.parametrize("spec", ["gap", "gap:4"])
def test_without_validation_images_the_defaults_and_the_last_epoch_are_used(folder, spec):
    settings, grid = tuned(TrainOptions("digits"), SETTINGS, len(TRAIN))
    history, choice = trained(cached(folder, spec), validation=TRAIN[:0], learning_rate=settings.learning_rate,
                              weight_decay=settings.weight_decay)  # fmt: skip
    assert (choice.learning_rate, choice.weight_decay) in grid.points
    assert (choice.chosen, choice.epoch, len(choice.candidates)) == (False, SETTINGS.epochs, 1)
    assert (history.validation_loss, history.validation_accuracy) == ([], [])
    assert history.train_loss[-1] < history.train_loss[0]


def test_what_the_user_gives_is_the_only_candidate():
    settings, grid = tuned(TrainOptions("digits", learning_rate=0.7), SETTINGS, 3000)
    assert (grid.learning_rates, settings.learning_rate, settings.epochs) == ((0.7,), 0.7, 12)
    assert len(grid.points) == 2
    settings, grid = tuned(TrainOptions("digits", weight_decay=0.0, epochs=4), SETTINGS, 3000)
    assert (grid.weight_decays, settings.weight_decay, settings.epochs, settings.patience) == ((0.0,), 0.0, 4, 4)
    assert len(grid.points) == 5


@pytest.mark.parametrize("spec", ["gap", "gap:4"])
def test_candidates_that_overflow_are_not_chosen(folder, spec):
    _, choice = trained(cached(folder, spec), grid=TuningGrid((1.0, 1e30), (0.0,)))
    assert choice.learning_rate == 1.0
    assert choice.candidates[0][2] is not None
    with pytest.raises(TrainingError, match="try a smaller learning rate"):
        trained(cached(folder, spec, change=lambda maps: maps * np.nan))


def test_adamw_learns_with_the_same_candidates(folder):
    history, choice = trained(cached(folder, "gap"), optimizer="adamw", epochs=20)
    assert choice.chosen
    assert min(history.validation_loss) < 0.8


@pytest.mark.parametrize("spec", ["gap", "fc", "nin", "gap:4"])
@pytest.mark.parametrize("balance", ["loss", "sampler"])
def test_classes_count_the_same_where_training_is_balanced(folder, spec, balance):
    rare = np.concatenate([TRAIN[LABELS[TRAIN] == 0], TRAIN[LABELS[TRAIN] == 1][:4], TRAIN[LABELS[TRAIN] == 2][:3]])
    recall = []
    for each in ("none", balance):
        predictor = cached(folder, spec)
        history, choice = trained(predictor, rare, epochs=6, balance=each)
        answers = predictor.logits(TEST).argmax(1).numpy()
        recall.append((answers == LABELS[TEST])[LABELS[TEST] != 0].mean())
    assert recall[1] > recall[0] + 0.1
    logits, labels = predictor.logits(VALIDATION), torch.from_numpy(LABELS[VALIDATION])
    weights = class_weights(LABELS[rare], CLASSES)
    least = F.cross_entropy(logits, labels, weights).item()
    assert history.validation_loss[choice.epoch - 1] == pytest.approx(least, abs=1e-5)
