"""Between a network and its head: tokens as a map and back, at any size of the same proportions and at no other."""

import pytest
import torch

from gapstone.cutting.adapters import ChannelsFirst, Passed, TokenGrid


def tokens(h: int, w: int, prefix: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A map, and its positions in a row behind so many others."""
    x = torch.rand(2, 3, h, w)
    return x, torch.cat([torch.full((2, prefix, 3), -1.0), x.flatten(2).transpose(1, 2)], 1)


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("size", [(4, 6), (2, 3), (8, 12), (6, 9)])
def test_tokens_become_the_map_they_were(size, prefix):
    x, row = tokens(*size, prefix)
    grid = TokenGrid((4, 6), prefix, channels_last=True, size=(64, 96))
    assert torch.equal(grid(row), x)
    assert torch.equal(TokenGrid((4, 6), 0, channels_last=False, size=(64, 96))(x.flatten(2)), x)


@pytest.mark.parametrize("count", [23, 25, 4 * 6 + 6])
def test_tokens_that_are_no_grid_of_the_proportions_are_refused(count):
    grid = TokenGrid((4, 6), 0, channels_last=False, size=(64, 96))
    with pytest.raises(ValueError, match=rf"{count} tokens are no grid"):
        grid(torch.zeros(1, 3, count))


@pytest.mark.parametrize(
    ("size", "taken"),
    [((64, 96), True), ((32, 48), True), ((128, 192), True), ((96, 64), False), ((64, 95), False), ((65, 96), False)],
)
def test_images_of_other_proportions_are_refused(size, taken):
    grid = TokenGrid((4, 6), 0, channels_last=False, size=(64, 96))
    if taken:
        grid.checked(torch.zeros(1, 3, *size))
    else:
        with pytest.raises(ValueError, match="give images of those proportions"):
            grid.checked(torch.zeros(1, 3, *size))


def test_images_of_another_number_of_axes_are_refused():
    with pytest.raises(ValueError, match="give images of those proportions"):
        TokenGrid((4, 6), 0, channels_last=False, size=(64, 96)).checked(torch.zeros(1, 3, 64, 96, 1))
    with pytest.raises(ValueError, match="no grid"):
        TokenGrid((2, 2, 2), 0, channels_last=False, size=(8, 8, 8))(torch.zeros(1, 3, 27))
    assert TokenGrid((2, 2, 2), 0, channels_last=False, size=(8, 8, 8))(torch.zeros(1, 3, 8)).shape == (1, 3, 2, 2, 2)


def test_what_stands_around_the_head():
    x = torch.rand(2, 4, 5, 3)
    assert torch.equal(ChannelsFirst()(x), x.permute(0, 3, 1, 2))
    logits = torch.rand(2, 7)
    assert Passed(())(logits) is logits
    assert Passed((2, 3))(logits).shape == (2, 7, 1, 1)
    assert Passed((1, 2))(logits).shape == (2, 1, 1, 7)


def test_what_is_printed():
    assert [repr(one) for one in (Passed(()), Passed((2, 3)), Passed((1, 2)))] == [
        "Passed((N, K))",
        "Passed((N, K, 1, 1))",
        "Passed((N, 1, 1, K))",
    ]
    assert "4×6" in repr(TokenGrid((4, 6), 0, True, (64, 96)))
    assert "without the first 2" in repr(TokenGrid((4, 6), 2, True, (64, 96)))
    assert "without" not in repr(TokenGrid((4, 6), 0, True, (64, 96)))
