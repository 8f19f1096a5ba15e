"""The interval of a difference on the same images: the published formula, and that it covers."""

import numpy as np
import pytest

from gapstone.console.formatting import signed
from gapstone.converting.before_and_after import ImageGroups, Paired


def of(n, both, lost, won):
    before = np.zeros(n, bool)
    after = np.zeros(n, bool)
    before[:both] = after[:both] = True
    before[both : both + lost] = True
    after[both + lost : both + lost + won] = True
    return Paired.of(before, after)


def test_counts():
    paired = of(100, 60, 15, 5)
    assert (paired.images, paired.lost, paired.won) == (100, 15, 5)
    assert (paired.before, paired.after) == (0.75, 0.65)


def test_the_published_formula():
    """Bonett & Price 2012: p12 = (f12 + 1)/(n + 2), p21 alike; p12 − p21 ± t √((p12 + p21 − (p12 − p21)²)/(n + 2))."""
    won, lost = (12 + 1) / 102, (3 + 1) / 102
    reach = 1.984217 * np.sqrt((won + lost - (won - lost) ** 2) / 102)
    low, high = of(100, 50, 3, 12).interval
    assert low == pytest.approx(won - lost - reach)
    assert high == pytest.approx(won - lost + reach)


def test_it_covers():
    random = np.random.default_rng(0)
    for n, shares in ((40, (0.6, 0.1, 0.05)), (200, (0.7, 0.02, 0.02)), (2000, (0.5, 0.1, 0.05))):
        truth, inside = shares[2] - shares[1], 0
        for _ in range(2000):
            both, lost, won, _ = random.multinomial(n, [*shares, 1 - sum(shares)])
            low, high = of(n, both, lost, won).interval
            inside += low <= truth <= high
        assert 0.935 < inside / 2000 < 0.995


def test_agreement_on_few_images_is_no_certainty():
    low, high = of(50, 40, 0, 0).interval
    assert (low, high) == (pytest.approx(-0.053, abs=0.003), pytest.approx(0.053, abs=0.003))


def test_the_verdict_says_what_the_interval_says():
    worse = of(2000, 1000, 328, 126).verdict("gap")
    assert worse.startswith(
        "With gap the model is LESS ACCURATE: 66.4 % before, 56.3 % after: −10.1 percentage points (95 % CI "
    )
    assert worse.endswith("on 2,000 test images (328 lost, 126 won).")
    assert of(2000, 1000, 126, 328).verdict("gap").startswith("With gap the model is more accurate")
    assert of(200, 100, 12, 11).verdict("gap").startswith("With gap the accuracy does not differ detectably: ")
    # never "the same"
    assert of(200, 100, 0, 0).verdict("gap").startswith("With gap the accuracy does not differ detectably")


def test_images_of_a_group_are_no_more_than_one():
    rng = np.random.default_rng(0)
    before, after = rng.random(40) < 0.5, rng.random(40) < 0.7
    alone = Paired.of(before, after)
    numbers = np.repeat(np.arange(40), 10)
    tenfold = Paired.of(before.repeat(10), after.repeat(10), ImageGroups(numbers, "--group patient"))
    assert tenfold.interval == pytest.approx(alone.interval, abs=0.003)  # n − 1 groups, n images
    assert (tenfold.images, tenfold.groups, alone.groups) == (400, 40, None)
    assert "on 400 test images of 40 groups (" in tenfold.verdict("gap")
    copies = Paired.of(before.repeat(10), after.repeat(10), ImageGroups(numbers, None))
    assert (copies.interval, copies.groups) == (tenfold.interval, None)
    independent = Paired.of(before.repeat(10), after.repeat(10))
    assert np.ptp(independent.interval) < np.ptp(tenfold.interval) / 3


def test_too_few_to_know_anything():
    four = Paired.of(np.ones(40, bool), np.zeros(40, bool), ImageGroups(np.repeat(np.arange(4), 10), "--group patient"))
    assert (four.interval, four.worse, four.as_json()["interval95"]) == (None, False, None)
    said = four.verdict("gap")
    assert said.startswith(
        "With gap: 100.0 % before, 0.0 % after: −100.0 percentage points, on 40 test images of 4 groups"
    )
    assert said.endswith(
        "The test images are of 4 groups: from 5 on they show how far the result depends on the group."
    )
    one = Paired.of(np.ones(1, bool), np.zeros(1, bool))
    assert one.verdict("gap").endswith(
        "(1 lost, 0 won). One test image does not show what others would do: add images."
    )
    assert Paired.of(np.ones(2, bool), np.zeros(2, bool), ImageGroups(np.zeros(2, np.int64), None)).interval is None


def test_signs():
    assert [signed(100 * x) for x in (-0.071, 0.0, 0.0004, -0.0004, 0.012)] == ["−7.1", "0.0", "0.0", "0.0", "+1.2"]


def test_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match="must be alike"):
        Paired.of(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="must be alike"):
        Paired.of(np.ones(0, bool), np.ones(0, bool))
