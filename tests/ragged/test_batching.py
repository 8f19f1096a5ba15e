"""Which images go together: all of them, once; within the limits; and no plan that costs more than a simpler one."""

import random

import pytest
import torch

from gapstone.ragged.batching import FILLING, MOST_PIXELS, buckets, joined
from gapstone.ragged.padding_check import alike, extremes


def sizes(n: int, low: int, high: int) -> list[tuple[int, int]]:
    rng = random.Random(0)
    return [(rng.randint(low, high), rng.randint(low, high)) for _ in range(n)]


@pytest.mark.parametrize("given", [sizes(64, 24, 40), sizes(700, 8, 64), sizes(9, 400, 1200), [(2000, 2000)] * 3, []])
@pytest.mark.parametrize("overhead", [0, 500, 20_000, 1e9])
def test_every_image_once_and_within_the_limit(given, overhead):
    for plan in (buckets(given, ""), joined(given, overhead / 3, overhead, "")):
        assert sorted(number for batch in plan.batches for number in batch.images) == list(range(len(given)))
        for batch in plan.batches:
            members = [given[number] for number in batch.images]
            assert batch.size == tuple(map(max, zip(*members, strict=True)))
            assert batch.pixels == sum(h * w for h, w in members)
            assert batch.several == (len(set(members)) > 1)
            assert members == sorted(members)  # those of one size side by side
            assert batch.padded <= MOST_PIXELS or len(batch.images) == 1


def test_joining_pays():
    given, overhead = sizes(64, 24, 40), 2000.0

    def cost(plan):
        return sum(overhead + batch.padded for batch in plan.batches)

    together, apart = joined(given, overhead, overhead, ""), buckets(given, "")
    assert 1 < len(together.batches) < len(apart.batches)
    assert cost(together) < 0.6 * cost(apart)
    one = overhead + 64 * 40 * 40
    assert cost(together) < one
    assert sum(b.padding * b.padded for b in together.batches) == pytest.approx(
        sum(b.padded - b.pixels for b in together.batches)
    )


def test_what_costs_nothing_more_stays_alone():
    given = sizes(30, 24, 40)
    assert joined(given, 0, 0, "").batches == joined(given, 100, 1e6, "").batches == buckets(given, "").batches


def test_the_plan_can_be_read():
    assert str(buckets([(8, 8), (9, 9)], "asked for")) == "2 images in 2 batches, each of one size: asked for"
    assert "1 of several sizes (12% padding, kept out)" in str(joined([(8, 8), (8, 6)], 1e6, 1e6, ""))


def test_answers_that_are_alike():
    one = torch.tensor([1.0, -2.0, 0.5])
    for dtype, close in ((torch.float64, 1e-8), (torch.float32, 1e-4), (torch.float16, 0.03)):
        x = one.to(dtype)
        assert alike(x, x.clone())
        assert alike(x.double().mul(1 + 0.4 * close).to(dtype), x)
        assert not alike(x + torch.tensor([0.0, 0.0, 3 * close], dtype=dtype), x)
    assert alike(torch.zeros(3), torch.zeros(3))
    assert not alike(torch.ones(3), torch.ones(1))  # of other sizes: nothing is spread over the other
    assert not alike(torch.ones(1, 3), torch.ones(3))
    assert not alike(torch.full((3,), torch.nan), one)
    images = [torch.zeros(3, *size) for size in ((9, 9), (5, 20), (20, 5), (7, 8), (30, 30))]
    assert extremes(images) == [1, 2, 3]  # the shortest, the narrowest, the smallest


def test_what_just_pays_is_joined():
    """A batch of several sizes costs its overhead and its padding; it must cost less than its parts."""
    given = [(10, 10), (10, 12)]

    def batches(plain: float, watched: float) -> int:
        return len(joined(given, plain, watched, "").batches)

    overhead = 2 * 200 + (100 + 120) - FILLING * 2 * 120
    assert batches(200, overhead - 1) == 1
    assert batches(200, overhead + 1) == 2
    assert batches(0, 19) == 2  # saves less than its padding costs


def test_a_batch_may_be_as_large_as_the_limit():
    half = MOST_PIXELS // 2
    assert len(joined([(1, half - 1), (1, half)], 1e12, 1e12, "").batches) == 1
    assert len(joined([(1, half), (1, half + 1)], 1e12, 1e12, "").batches) == 2
    assert len(buckets([(1, half)] * 2, "").batches) == 1
    assert len(buckets([(1, half + 1)] * 2, "").batches) == 2
