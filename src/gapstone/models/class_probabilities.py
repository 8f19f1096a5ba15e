"""From logits to probabilities, and to the classes that are answered: one, or with several labels any number.

Every place that has logits of a model asks here, so that a multi-label model is nowhere taken for one of a softmax.
"""

from collections.abc import Sequence

from torch import Tensor

from gapstone.heads import parse

ANSWERED = 0.5
"""The least probability at which a multi-label model answers a class: that of a logit of 0."""


def probabilities(logits: Tensor, multi_label: bool = False) -> Tensor:
    """(…, K) of logits (…, K): softmax, which sums to 1; of several labels each class's own sigmoid.

    >>> probabilities(torch.tensor([0.0, 0.0]))
    tensor([0.5000, 0.5000])
    >>> probabilities(torch.tensor([0.0, -100.0]), multi_label=True)
    tensor([0.5000, 0.0000])
    """
    return logits.sigmoid() if multi_label else logits.softmax(-1)


def answered(probabilities: Sequence[float], multi_label: bool = False) -> list[int]:
    """The classes that one image is answered with: the most probable one; of several labels all of at least 0.5, most
    probable first, and possibly none.

    >>> answered([0.2, 0.3, 0.1]), answered([0.6, 0.9, 0.1], multi_label=True), answered([0.2, 0.3], multi_label=True)
    ([1], [1, 0], [])
    """
    order = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])
    return [k for k in order if probabilities[k] >= ANSWERED] if multi_label else order[:1]


def takes_several(head: str) -> bool:
    """Whether a head can answer several labels: its logits may be negative, or each class would have 0.5 at least.

    >>> takes_several("gap"), takes_several("nin")
    (True, False)
    """
    return not parse(head).recipe.maps


def check_multi_label(head: str) -> None:
    """Raises ValueError for a head that cannot answer several labels."""
    if not takes_several(head):
        raise ValueError(
            f"head {head!r} rectifies its class maps before it pools them: its logits are never below 0, and no class "
            f"would have a probability below 0.5. For several labels per image take gap, which has class maps, too."
        )
