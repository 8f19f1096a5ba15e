"""Networks that learn any number of classes: the loss, how training begins, and which epoch is best."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier
from gapstone.training.balance import class_weights
from gapstone.training.loop import TrainSettings, predict, train, train_epochs
from gapstone.training.losses import accuracy, log_odds, mean_loss
from gapstone.training.training_data import TrainOptions, plan_training

RNG = np.random.default_rng(0)
LABELS = RNG.random((60, 3)) < [0.5, 0.2, 0.05]
LOGITS = torch.from_numpy(RNG.normal(size=(60, 3)))
TRUTH = torch.from_numpy(LABELS)


def test_loss_is_the_sum_over_classes_of_scikit_learns_log_loss():
    p = LOGITS.sigmoid().numpy()
    expected = sum(log_loss(LABELS[:, k], p[:, k]) for k in range(3))
    assert mean_loss(LOGITS, TRUTH).item() == pytest.approx(expected)
    # a class's gradient does not depend on how many others there are
    gradients = []
    for classes in (1, 3):
        logits = LOGITS[:, :classes].clone().requires_grad_()
        mean_loss(logits, TRUTH[:, :classes]).backward()
        gradients.append(logits.grad[:, 0])
    assert torch.equal(*gradients)


def test_balanced_loss_has_scikit_learns_weights_of_each_class():
    weights, p = class_weights(LABELS, 3), LOGITS.sigmoid().numpy()
    for k in range(3):
        expected = compute_class_weight("balanced", classes=np.array([False, True]), y=LABELS[:, k])
        assert weights[:, k].tolist() == pytest.approx(expected.tolist())
    each = [log_loss(LABELS[:, k], p[:, k], sample_weight=weights[LABELS[:, k].astype(int), k]) for k in range(3)]
    assert mean_loss(LOGITS, TRUTH, weights).item() == pytest.approx(sum(each))
    nobody = class_weights(np.zeros((4, 1), bool), 1)
    assert nobody.tolist() == [[1.0], [0.0]]


def test_accuracy_is_of_whole_sets_and_balanced_by_class():
    answers = (LOGITS >= 0).numpy()
    assert accuracy(LOGITS, TRUTH).item() == pytest.approx(accuracy_score(LABELS, answers))
    by_class = [balanced_accuracy_score(LABELS[:, k], answers[:, k]) for k in range(3)]
    assert accuracy(LOGITS, TRUTH, class_weights(LABELS, 3)).item() == pytest.approx(np.mean(by_class))
    both = torch.stack([LOGITS, -LOGITS])
    assert accuracy(both, TRUTH).tolist()[0] == accuracy(LOGITS, TRUTH).item()


def test_log_odds_are_those_of_the_classes():
    labels = np.array([[True, False], [True, False], [False, False]])
    assert log_odds(labels).sigmoid().tolist() == pytest.approx([2.5 / 4, 0.5 / 4])


def test_the_best_epoch_has_the_least_loss_even_where_another_is_right_more_often():
    model, truth = nn.Linear(1, 1, bias=False), torch.tensor([[True], [False]])
    script = iter([[[0.1], [0.1]], [[0.01], [-0.01]], [[8.0], [0.2]]])  # losses 0.69, 0.69, 0.40

    def validate():
        return torch.tensor(next(script)), truth

    history = train_epochs(model, lambda epoch: 0.0, validate, TrainSettings(epochs=3), 0)
    assert history.validation_accuracy == [0.5, 1.0, 0.5]
    assert history.best_epoch == 3


@dataclass
class Corners:
    """Pictures in which each of three corners may be bright: one class each."""

    def __init__(self, count: int = 240) -> None:
        random = np.random.default_rng(0)
        self.labels = random.random((count, 3)) < [0.5, 0.3, 0.1]
        self.images = random.integers(0, 120, (count, 16, 16, 1), np.uint8)
        for k, (row, column) in enumerate([(0, 0), (0, 10), (10, 0)]):
            self.images[self.labels[:, k], row : row + 6, column : column + 6] += 100


def test_a_network_learns_each_class_by_itself():
    pictures, train_rows, held, test = Corners(), np.arange(140), np.arange(140, 180), np.arange(180, 240)
    torch.manual_seed(0)
    model = Classifier("nin", "fc:grid=2", ("a", "b", "c"), Preprocessing(1, (16, 16), (16, 16), (0.3,), (0.2,)),
                       multi_label=True)  # fmt: skip
    history = train(model, pictures, train_rows, held, TrainSettings(epochs=6, batch_size=16), seed=0)
    prior = F.binary_cross_entropy_with_logits(
        log_odds(pictures.labels[train_rows]).expand(len(held), -1), torch.from_numpy(pictures.labels[held]).float()
    )
    assert history.train_loss[0] < 3 * 0.69  # it does not begin by finding the rates
    assert min(history.validation_loss) < 3 * float(prior) / 2
    scores = predict(model, pictures, test).numpy()
    assert average_precision_score(pictures.labels[test], scores) > 0.9


@pytest.mark.parametrize(
    ("head", "balance", "reason"),
    [
        ("gap", "sampler", "--balance sampler draws each class as often, and an image of several labels"),
        ("nin", "none", "head 'nin' rectifies its class maps"),
    ],
)
def test_what_is_not_for_several_labels_is_refused_before_images_are_read(head, balance, reason, tmp_path):
    pictures = Corners(30)
    np.savez(tmp_path / "d.npz", images=pictures.images, labels=pictures.labels, classes=np.array(["a", "b", "c"]))
    options = TrainOptions(str(tmp_path / "d.npz"), balance=balance)
    with pytest.raises(ValueError, match=reason):
        plan_training(options, (0,), None, lambda text: None, lambda name: pytest.fail(name), heads=[head])
