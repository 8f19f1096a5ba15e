"""Pictures moved by a few pixels."""

import torch

from gapstone.images.shift import shifted


def test_whole_pixels_and_the_border_repeated():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert shifted(x, 1, 0)[0, 0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert shifted(x, 0, -1)[0, 0].tolist() == [[1, 2, 2], [4, 5, 5], [7, 8, 8]]
    assert torch.equal(shifted(x, 0, 0), x)
