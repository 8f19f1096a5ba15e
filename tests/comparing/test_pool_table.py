"""A pool's answers at any value of what it learns, from those at a few."""

import pytest
import torch

import gapstone as gs
from gapstone.comparing.pool_table import NEAREST, PoolTable, learns_one_number

MAPS = torch.rand(6, 5, 3, 3, generator=torch.Generator().manual_seed(0)).sub(0.3).relu() * 4


def table(name):
    asked = []

    def read(what, ask):
        asked.append(what)
        return torch.cat([ask(MAPS[:4]), ask(MAPS[4:])])

    return PoolTable(gs.Pool(name, learn=True), read), asked


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [("gem", "p", (0.1, 0.4, 2.2, 3.0, 3.1, 17.0, 100.0)), ("logsumexp", "r", (1e-3, 0.3, 4.0, 5.0, 60.0, 1e3))],
)
def test_answers_and_slopes_are_the_pools(name, key, values):
    found, _ = table(name)
    images = torch.tensor([5, 0, 3, 0])
    mine, theirs = ([gs.Pool(name, learn=True, **{key: value}) for value in values] for _ in range(2))
    answers = found(images, mine)
    expected = [gs.pool(MAPS[images].double(), name, **one.parameters_of_pool()) for one in theirs]
    for got, exact, pool, own in zip(answers, expected, mine, theirs, strict=True):
        torch.testing.assert_close(got, exact.float(), rtol=2e-5, atol=1e-6)
        got.sum().backward(retain_graph=True)
        exact.sum().backward()
        slope, right = getattr(pool, key).grad, getattr(own, key).grad
        torch.testing.assert_close(slope.float(), right.float(), rtol=1e-3, atol=1e-4)


def test_the_pool_is_asked_once_for_each_value_that_is_needed():
    found, asked = table("gem")
    near = [gs.Pool("gem", learn=True, p=p) for p in (3.0, 3.1, 3.2)]
    found(torch.tensor([1]), near)
    found(torch.tensor([2, 4]), near)
    assert len(asked) == len(set(asked)) == NEAREST
    found(torch.tensor([0]), [gs.Pool("gem", learn=True, p=9.0)])  # between, nothing is asked for
    assert len(asked) == len(set(asked)) <= 2 * NEAREST


def test_numbers_that_overflowed_stay_with_their_candidate():
    found, _ = table("gem")
    pools = [gs.Pool("gem", learn=True), gs.Pool("gem", learn=True)]
    with torch.no_grad():
        pools[0].p.fill_(float("nan"))
    lost, fine = found(torch.arange(6), pools)
    assert lost.isnan().all()
    torch.testing.assert_close(fine, gs.pool(MAPS, "gem"))


def test_for_which_pools():
    assert learns_one_number([gs.Pool("gem", learn=True)])
    assert not learns_one_number([gs.Pool("gem")])
    assert not learns_one_number([gs.Pool("gem", learn=True)] * 2)
    assert not learns_one_number([gs.Pool("gem", p=torch.full((5,), 3.0), learn=True)])
    assert not learns_one_number([gs.Pool("attention", query=torch.zeros(5), learn=True)])
    assert not learns_one_number([])
