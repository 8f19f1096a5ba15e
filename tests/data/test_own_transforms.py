"""Random transforms of the user's own: from which Dataset training draws, repeatably, and what is refused."""

import random
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch

from gapstone.data.dataset_values import DatasetValues
from gapstone.data.drawn_images import DrawnImages
from gapstone.data.open_source import open_source
from gapstone.data.seeded_items import SeededItems
from gapstone.data.sources import DataError

PAIRS = [(np.full((8, 9, 3), 40 * k + 20, np.uint8), k % 2) for k in range(6)]
Change = Callable[[Any], Any]


class Images(torch.utils.data.Dataset[Any]):
    """A map-style Dataset, with a generator of its own."""

    def __init__(self, change: Change = lambda image: image, pairs: Any = PAIRS, own: Any = None) -> None:
        self.change, self.pairs, self.own = change, pairs, own

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, k: int) -> Any:
        image, label = self.pairs[k]
        return self.change(image) if self.own is None else image + np.uint8(drawn_by(self.own)), label


def drawn_by(generator: Any) -> int:
    if isinstance(generator, torch.Generator):
        return int(torch.randint(20, (), generator=generator))
    draw = generator.integers if isinstance(generator, np.random.Generator) else generator.randint
    return int(draw(0, 20))


def noise(image: Any) -> Any:
    """Of all three shared generators, so that each has to be seeded."""
    return image + np.uint8(random.randrange(6) + np.random.randint(6) + int(torch.randint(6, ())))  # noqa: NPY002


OWN = [
    lambda: random.Random(3), lambda: np.random.default_rng(3), lambda: np.random.RandomState(3),
    lambda: torch.Generator().manual_seed(3), lambda: np.random.Generator(np.random.Philox(3)),
]  # fmt: skip


@pytest.mark.parametrize("make", [lambda: Images(noise), *(lambda own=own: Images(own=own()) for own in OWN)])
def test_a_seed_gives_the_same_image_and_nothing_else_changes(make: Callable[[], Images]) -> None:
    data = make()
    items = SeededItems(data)
    with items.random_state_kept():
        images = [items.draw(k, (0, epoch))[0][0, 0, 0] for k in range(6) for epoch in range(5)]
        again = [items.draw(k, (0, epoch))[0][0, 0, 0] for k in range(6) for epoch in range(5)]
    assert images == again
    assert len({int(value) - 40 * (k // 5) for k, value in enumerate(images)}) > 5  # images and epochs differ
    copy = SeededItems(cloudpickle.loads(cloudpickle.dumps(data)))
    with copy.random_state_kept():
        assert [copy.draw(k, (0, epoch))[0][0, 0, 0] for k in range(6) for epoch in range(5)] == images


def test_what_others_draw_is_as_if_nothing_had_been_drawn_between() -> None:
    own = np.random.default_rng(3)
    items, drawn = SeededItems(Images(own=own)), []
    for looks in (0, 1):
        random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
        own.bit_generator.state = np.random.default_rng(3).bit_generator.state
        for _ in range(looks):
            with items.random_state_kept():
                items.draw(0, (0, 0))
        drawn.append((random.random(), np.random.random(), float(torch.rand(())), drawn_by(own)))  # noqa: NPY002
    assert drawn[0] == drawn[1]


def test_the_same_item_is_drawn_from_augmented() -> None:
    left_out = [*PAIRS[:2], (None, 0), *PAIRS[2:]]  # an item that cannot be read has no row
    plain = Images(lambda image: image * 1, left_out)
    s = open_source(plain, augmented=Images(lambda image: image // 2, left_out))
    assert s.drawn is not None
    assert [int(s.drawn.draw(k, (0, 1))[0, 0, 0]) for k in range(6)] == [(40 * k + 20) // 2 for k in range(6)]
    assert int(s.pixels(5)[0, 0, 0]) == 220  # what is tested stays the same


def test_of_several_parts_train_alone_is_drawn() -> None:
    reverse = torch.utils.data.Subset(Images(), [5, 4, 3, 2])
    parts = {"train": reverse, "test": Images()}
    augmented = torch.utils.data.Subset(Images(lambda image: image + np.uint8(1)), [5, 4, 3, 2])
    s = open_source(parts, augmented=augmented)
    assert isinstance(s.drawn, DrawnImages)
    assert s.drawn.indices.tolist() == [0, 1, 2, 3, *[-1] * 6]
    assert int(s.drawn.draw(1, (0, 1))[0, 0, 0]) == 40 * 4 + 20 + 1


def test_random_train_images_are_looked_at_as_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapstone.data.dataset_values._KEPT", 0)  # each is read again whenever it is asked for
    subset = torch.utils.data.Subset(Images(noise), [3, 1, 2])
    parts = {"train": subset, "val": Images(), "test": Images()}
    s, again = open_source(parts), open_source(parts)
    assert isinstance(s.array, DatasetValues)
    assert not s.array.kept
    assert [s.pixels(k).tolist() for k in range(3)] == [again.pixels(k).tolist() for k in range(3)]
    assert s.hints[0].startswith("train has random transforms, which draw its images anew in each epoch.")
    assert s.drawn is not None
    draws = [int(s.drawn.draw(0, (0, epoch))[0, 0, 0]) for epoch in range(1, 20)]
    assert len(set(draws)) > 3
    assert all(140 <= value <= 155 for value in draws)  # item 3 of the Dataset


def test_an_edited_transform_is_another_one() -> None:
    def digest(change: Change) -> str:
        s = open_source(Images(), augmented=Images(change))
        assert s.drawn is not None
        assert s.drawn.unknown is None
        return s.drawn.digest

    assert digest(noise) == digest(noise)
    assert digest(lambda image: image + np.uint8(1)) != digest(lambda image: image + np.uint8(2))
    s = open_source(Images(), augmented=Images(Unknown()))
    assert s.drawn is not None
    assert s.drawn.unknown == "a value of the class tests.data.test_own_transforms._Slotless"


class _Slotless:
    __slots__ = ()


class Unknown:
    def __init__(self) -> None:
        self.held = _Slotless()

    def __call__(self, image: Any) -> Any:
        return image


def test_it_is_drawn_the_same_in_another_process() -> None:
    s = open_source(Images(), augmented=Images(noise))
    assert isinstance(s.drawn, DrawnImages)
    copy = cloudpickle.loads(cloudpickle.dumps(s.drawn))
    assert copy.digest == s.drawn.digest
    assert np.array_equal(copy.draw(3, (1, 2)), s.drawn.draw(3, (1, 2)))


@pytest.mark.parametrize(
    ("data", "augmented", "says"),
    [
        (
            Images(noise),
            None,
            r"image #\d is another image .* and the one with them as augmented=",
        ),
        ({"train": Images(), "test": Images(noise)}, None, "Give test without them"),
        ({"train": Images(noise), "test": Images()}, None, "Give val and test, too"),
        ({"train": Images(noise), "val": Images(), "test": Images()}, Images(noise), "Give train without them"),
        (Images(), Images(pairs=PAIRS[:5]), "augmented= has 5 items, and data 6"),
        (Images(), Images(pairs=PAIRS[::-1]), r"augmented=: item 0 has the label 1, and data 0; expected the same"),
        (Images(), Images(lambda image: image / 255 - 0.5), "augmented=: item 0 is floats .* Leave out Normalize"),
        (Images(), 5, "augmented= is of the type int; expected a Dataset"),
        ((np.zeros((6, 8, 8), np.uint8), [0, 1] * 3), Images(), "augmented= goes with a Dataset"),
    ],
)
def test_what_cannot_be_drawn_from(data: object, augmented: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_source(data, augmented=augmented)


def test_what_no_seed_makes_the_same_is_refused() -> None:
    unseeded = Images(lambda image: image + np.uint8(random.SystemRandom().randrange(20)))
    with pytest.raises(DataError, match="its transforms draw from another source"):
        open_source({"train": unseeded, "val": Images(), "test": Images()})
    with pytest.raises(DataError, match=r"augmented=: item .* its transforms draw from another source"):
        open_source(Images(), augmented=unseeded)
