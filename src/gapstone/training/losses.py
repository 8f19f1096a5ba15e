"""What training makes small, and validation compares: cross-entropy of one class per image, or of each class by itself.

With several labels per image each class is a logistic regression of its own: the loss of an image is the *sum* over the
classes, so that a class's gradient, and the learning rate that suits it, do not depend on how many others there are.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapstone.heads import Head
from gapstone.statistics.labels import Labels, is_multi_label


def labels_tensor(labels: Labels) -> Tensor:
    """(N,) int64 or (N, K) bool, as the functions below take them."""
    return torch.from_numpy(np.asarray(labels, bool if is_multi_label(labels) else np.int64))


def mean_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over images of logits (N, K): cross-entropy, or the sum over classes of binary cross-entropy.

        >>> mean_loss(torch.zeros(2, 3), torch.tensor([0, 2]))  # log 3
        tensor(1.0986)
        >>> mean_loss(torch.zeros(2, 3), torch.tensor([[True, False, True], [False, False, False]]))  # 3 log 2
        tensor(2.0794)

    `weights`: as `balance.class_weights` makes them; None: all count the same.
    """
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels, weights)
    each = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    if weights is not None:
        each = each * torch.where(labels, weights[1], weights[0])
    return each.sum() / len(labels)


def accuracy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The share of correct answers of logits (…, N, K), images weighted by their class.

    With several labels an answer is correct that is right in all of its classes; with `weights`, the mean over classes
    of the answers that are right in this one.
    """
    if labels.dim() == 1:
        right = (logits.argmax(-1) == labels).double()
        return right.mean(-1) if weights is None else (right @ (weighed := weights[labels].double())) / weighed.sum()
    right = (logits >= 0) == labels
    if weights is None:
        return right.all(-1).double().mean(-1)
    share = torch.where(labels, weights[1], weights[0]).double()
    return ((right * share).sum(-2) / share.sum(0)).mean(-1)


def is_better(accuracy: float, loss: float, best: tuple[float, float] | None, multi_label: bool) -> bool:
    """Whether an epoch of this validation accuracy and loss is better than the `best` so far.

    One class per image: by accuracy; at a tie, by loss. Several: by loss, as few images are right in all classes.
    """
    if best is None:
        return True
    return loss < best[1] if multi_label else (accuracy, -loss) > (best[0], -best[1])


def log_odds(labels: Labels) -> Tensor:
    """(K,) what a logit is before anything is known of the image: the log-odds of each class; half an image is added.

    >>> log_odds(np.array([[True, False], [True, False], [False, False]]))
    tensor([ 0.5108, -1.9459])
    """
    positive = labels.sum(0)
    return torch.from_numpy(np.log((positive + 0.5) / (len(labels) - positive + 0.5)).astype(np.float32))


@torch.no_grad()
def begin_at(head: Head, log_odds: Tensor) -> None:
    """Give the head's last layer these biases, so that training need not find them."""
    assert head.classifier is not None
    last = head.classifier[-1]
    assert isinstance(last, nn.Linear)
    last.bias.copy_(log_odds)
