"""The loop learns, repeats to the last bit, gives every head the same stream, stops early, and says when it cannot."""

import numpy as np
import pytest
import torch

from gapstone.images.augment import Augment, suit
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier
from gapstone.training.loop import TrainingError, TrainSettings, batches, predict, train
from gapstone.training.pace import faster, measure_pace

PREPROCESSING = Preprocessing(1, (16, 16), (16, 16), (0.2,), (0.3,))
ROWS, HELD = np.arange(0, 250), np.arange(250, 300)


class Pictures:
    """A bright square in one of three places; bits of noise around it."""

    def __init__(self):
        random = np.random.default_rng(0)
        self.labels = random.integers(0, 3, 300)
        self.images = random.integers(0, 60, (300, 16, 16, 1), np.uint8)
        for image, label in zip(self.images, self.labels, strict=True):
            image[4:10, 2 + 4 * label : 6 + 4 * label] += 150


def model(head="fc", seed=0, preprocessing=PREPROCESSING):
    torch.manual_seed(seed)
    return Classifier("nin", head, ("left", "middle", "right"), preprocessing)


def test_it_learns_and_keeps_the_best_epoch():
    pictures, trained = Pictures(), model()
    seen = []
    history = train(
        trained, pictures, ROWS, HELD, TrainSettings(epochs=6), after_epoch=lambda epoch, h: seen.append(epoch)
    )
    assert seen == [1, 2, 3, 4, 5, 6]
    assert not trained.training
    accuracy = (predict(trained, pictures, HELD).argmax(1).numpy() == pictures.labels[HELD]).mean()
    assert accuracy == max(history.validation_accuracy) == history.validation_accuracy[history.best_epoch - 1]
    assert accuracy > 0.9
    assert history.train_loss[-1] < 0.3 * history.train_loss[0]


@pytest.mark.parametrize(
    "settings", [TrainSettings(epochs=2), TrainSettings(epochs=2, optimizer="adamw", learning_rate=1e-3)]
)
def test_the_same_seed_gives_the_same_weights(settings):
    pictures = Pictures()
    first, again, other = model("fc:8:dropout=0.5"), model("fc:8:dropout=0.5"), model("fc:8:dropout=0.5")
    for trained, seed in ((first, 0), (again, 0), (other, 1)):
        torch.rand(7)  # whatever was drawn before
        train(trained, pictures, ROWS, HELD, settings, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_all_heads_see_the_same_images_and_begin_with_the_same_trunk():
    pictures = Pictures()
    settings = TrainSettings(augment=Augment(flip=True, shift=2))
    streams = [list(batches(model(head), pictures, ROWS, settings, seed=3, epoch=2)) for head in ("gap", "fc:64")]
    for (x, y), (x2, y2) in zip(*streams, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    (other, _), *_ = batches(model("gap"), pictures, ROWS, settings, seed=3, epoch=3)
    assert not torch.equal(other, streams[0][0][0])
    assert all(
        torch.equal(a, b)
        for a, b in zip(model("gap").features.parameters(), model("fc:64").features.parameters(), strict=True)
    )


def test_it_stops_when_validation_no_longer_gets_better():
    pictures = Pictures()
    pictures.labels[HELD] = np.random.default_rng(1).integers(0, 3, len(HELD))  # nothing to learn there
    trained = model()
    history = train(trained, pictures, ROWS, HELD, TrainSettings(epochs=40, patience=2))
    assert len(history.train_loss) == history.best_epoch + 2 < 40
    # the weights are those of the best epoch, two before the last
    answers = predict(trained, pictures, HELD)
    loss = torch.nn.functional.cross_entropy(answers, torch.from_numpy(pictures.labels[HELD])).item()
    assert loss == pytest.approx(history.validation_loss[history.best_epoch - 1], rel=1e-5)
    assert loss != pytest.approx(history.validation_loss[-1], rel=1e-3)


def test_without_validation_the_last_epoch_is_kept():
    history = train(model(), Pictures(), ROWS, HELD[:0], TrainSettings(epochs=2))
    assert history.best_epoch == 2
    assert history.validation_accuracy == []


def test_a_loss_that_is_no_number_ends_with_advice():
    with pytest.raises(TrainingError, match="smaller learning rate"):
        train(model("fc:64"), Pictures(), ROWS, HELD, TrainSettings(epochs=3, learning_rate=90.0, warmup=0.01))


def test_no_decay_on_norms_and_biases():
    from gapstone.training.loop import make_optimizer

    decayed, free = make_optimizer(model("gem:p=learned"), TrainSettings()).param_groups
    assert decayed["weight_decay"] > 0 == free["weight_decay"]
    assert {p.dim() for p in decayed["params"]} == {2, 4}
    assert {p.dim() for p in free["params"]} == {1}  # a learned p, too


def test_channels_last_and_precision():
    trained = model()
    train(trained, Pictures(), ROWS, HELD, TrainSettings(epochs=1, precision="bfloat16"))
    weight = next(p for p in trained.parameters() if p.dim() == 4 and p.shape[1] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert weight.dtype == torch.float32
    answers = predict(trained, Pictures(), HELD, "bfloat16")
    assert answers.dtype == torch.float32
    assert not torch.equal(answers, answers.bfloat16().float())  # the head ran in float32


def test_bfloat16_is_chosen_only_where_it_is_clearly_faster():
    assert faster({"float32": 2.0, "bfloat16": 1.0}) == "bfloat16"
    assert faster({"float32": 1.1, "bfloat16": 1.0}) == faster({"float32": 1.0}) == "float32"
    assert faster({"bfloat16": 3.0}) == "bfloat16"
    # a small network is not even timed in it
    pace = measure_pace(model, Pictures(), ROWS, TrainSettings(), "auto")
    assert pace.precision == "float32"
    assert pace.step > 0
    assert pace.seconds(TrainSettings(batch_size=10), 100, 30) == pytest.approx(11 * pace.step)
    assert measure_pace(model, Pictures(), ROWS, TrainSettings(), "bfloat16").precision == "bfloat16"


def test_augmentation_moves_crops_and_flips():
    random = np.random.default_rng
    batch = np.arange(2 * 6 * 6, dtype=np.uint8).reshape(2, 6, 6, 1)
    same = Augment()(batch, (6, 6), random(0))
    assert np.array_equal(same, batch)
    assert np.array_equal(Augment()(batch, (4, 4), random(0)), batch[:, 1:5, 1:5])
    many = np.repeat(batch[:1], 200, 0)
    flipped = Augment(flip=True)(many, (6, 6), random(0))
    kinds = {out.tobytes() for out in flipped}
    assert kinds == {batch[0].tobytes(), np.ascontiguousarray(batch[0][:, ::-1]).tobytes()}
    crops = {out.tobytes() for out in Augment(crop=True)(many, (4, 4), random(0))}
    assert crops == {batch[0, y : y + 4, x : x + 4].tobytes() for y in range(3) for x in range(3)}
    moved = {out.tobytes() for out in Augment(shift=1)(many, (6, 6), random(0))}
    assert len(moved) == 9
    assert batch[0].tobytes() in moved
    assert np.array_equal(batch, np.arange(72, dtype=np.uint8).reshape(2, 6, 6, 1)), "the stored images were changed"
    assert suit(1, (28, 28), (28, 28)) == Augment()
    assert suit(3, (32, 32), (32, 32)) == Augment(flip=True, shift=4)
    assert suit(3, (224, 224), (256, 256)) == Augment(flip=True, crop=True)
    assert Augment(flip=True, shift=4).describe() == "flips and shifts of up to 4 px"
