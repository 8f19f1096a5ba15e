"""Batches that random transforms of the user's own draw: what they depend on, and what they leave alone."""

from contextlib import nullcontext

import numpy as np
import torch

from gapstone.images.preprocessing import Preprocessing
from gapstone.training.drawn_rows import DrawnRows

PREPROCESSING = Preprocessing(1, (4, 4), (6, 6), (0.5,), (0.25,))


class Numbered:
    """Draws an image that says what it was drawn by."""

    digest, unknown = "0", None

    def __init__(self, shape=(4, 4, 1)):
        self.shape, self.asked = shape, []

    def draw(self, item, seed, ranges=None):
        self.asked.append((item, *seed))
        torch.rand(3)
        return np.full(self.shape, 10 * item + seed[1], np.uint8)

    def random_state_kept(self):
        return torch.random.fork_rng(devices=[])


def test_rows_of_the_store_are_items_of_the_source_and_repeated_ones_are_drawn_anew():
    images = Numbered()
    drawn = DrawnRows(images, np.array([7, 3, 5]))
    first, second = drawn.batches([np.array([2, 0]), np.array([2])], 8, 1, PREPROCESSING)
    assert first.dtype == np.uint8
    assert (first.shape, second.shape) == ((2, 4, 4, 1), (1, 4, 4, 1))
    assert first[:, 0, 0, 0].tolist() == [51, 71]
    assert images.asked == [(5, 8, 1, 1), (7, 8, 1, 1), (5, 8, 1, 2)]


def test_what_is_drawn_between_stays_the_same():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    found = []
    for _ in DrawnRows(Numbered(), np.arange(3)).batches([np.array([0]), np.array([1])], 0, 1, PREPROCESSING):
        found.append(float(torch.rand(())))
    assert found == expected.tolist()


def test_images_of_other_sizes_and_colours_are_fitted_as_all_are():
    images = Numbered((9, 12, 3))
    images.random_state_kept = nullcontext
    (batch,) = DrawnRows(images, np.arange(3)).batches([np.array([1])], 0, 1, PREPROCESSING)
    expected = PREPROCESSING.centre(PREPROCESSING.fit(np.full((9, 12, 3), 11, np.uint8))[None])
    assert np.array_equal(batch, expected)
    colour = Numbered((4, 4, 3))  # of the network's size: not enlarged to that of stored ones
    (batch,) = DrawnRows(colour, np.arange(3)).batches([np.array([1])], 0, 1, PREPROCESSING)
    assert batch.shape == (1, 4, 4, 1)
