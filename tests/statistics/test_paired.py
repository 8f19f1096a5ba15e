"""The interval of a difference on the same images: the published formula, and that it covers."""

import numpy as np
import pytest

from gapstone.statistics.paired_difference import Paired, signed


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
    """Bonett & Price 2012: p12 = (f12 + 1)/(n + 2), p21 alike; p12 − p21 ± z √((p12 + p21 − (p12 − p21)²)/(n + 2))."""
    won, lost = (12 + 1) / 102, (3 + 1) / 102
    reach = 1.959964 * np.sqrt((won + lost - (won - lost) ** 2) / 102)
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


def test_signs():
    assert [signed(100 * x) for x in (-0.071, 0.0, 0.0004, -0.0004, 0.012)] == ["−7.1", "0.0", "0.0", "0.0", "+1.2"]


def test_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match="must be alike"):
        Paired.of(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="must be alike"):
        Paired.of(np.ones(0, bool), np.ones(0, bool))
