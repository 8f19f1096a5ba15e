"""A function of one's own as a metric: the jackknife of accuracy is accuracy, and what goes wrong is said."""

from typing import Any

import numpy as np
import pytest

from gapstone.statistics import own_metric as module
from gapstone.statistics.compare_pairs import compare_pairs
from gapstone.statistics.metrics import METRICS, added_images
from gapstone.statistics.own_metric import check_own, own_metric


def predicted(seed: int = 0, images: int = 40) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    return labels, rng.dirichlet(np.ones(3), images) * 0.6 + 0.4 * np.eye(3)[labels]


def right(labels: Any, probabilities: Any) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def loss(labels: Any, probabilities: Any) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize(("function", "name"), [(right, "accuracy"), (loss, "nll")])
def test_the_jackknife_of_a_mean_is_its_values(function: Any, name: str) -> None:
    labels, p = predicted()
    assert own_metric(function).values(labels, p) == pytest.approx(METRICS[name].values(labels, p), abs=1e-9)


def test_the_jackknife_of_auroc_is_near_its_influence_values() -> None:
    labels, p = predicted(images=400)
    exact = METRICS["auroc"].values(labels, p)

    def auroc(labels: Any, probabilities: Any) -> float:
        return float(METRICS["auroc"].values(labels, probabilities).mean())

    found = own_metric(auroc).values(labels, p)
    assert found.mean() == pytest.approx(exact.mean(), abs=1e-12)
    assert np.corrcoef(found, exact)[0, 1] > 0.999
    assert found.std() == pytest.approx(exact.std(), rel=0.02)


def test_accuracy_as_ones_own_has_the_same_verdict() -> None:
    """Down to the images that are added: two, as an answer that is right counts 1 more than one that is wrong."""
    metric, rows, tested = own_metric(right), {}, []
    for head in ("a", "b"):
        rows[head] = {}
        for seed in range(3):
            labels, p = predicted(seed + 10 * (head == "b"))
            rows[head][seed] = metric.values(labels, p)
            tested.append((labels, rows[head][seed], p.argmax(1) == labels))
    added = added_images(metric, tested[0][0], tested)
    assert added == pytest.approx(2)
    (own,) = compare_pairs(rows, "b", metric.unit, agreement=added)
    (plain,) = compare_pairs(rows, "b")
    assert own["p"] == pytest.approx(plain["p"])
    assert own["ci95"] == pytest.approx([end / 100 for end in plain["ci95"]])
    assert (own["margin"], own["unit"], plain["unit"]) == (None, "", "percentage points")
    assert own["advice"] == "More seeds, or more test images, narrow the interval."


def test_lower_may_be_better_and_a_margin_may_be_given() -> None:
    def cost(labels: Any, probabilities: Any) -> float:
        return 1 - right(labels, probabilities)

    cost.lower_is_better, cost.margin = True, 0.2  # type: ignore[attr-defined]
    unit = own_metric(cost).unit
    assert (unit.lower_is_better, unit.margin, unit.aims) == (True, 0.2, (2.0, 0.8, 0.4, 0.2))
    low, high = ({seed: np.array([x, x, x, 0.5]) for seed, x in enumerate(values)} for values in ((0, 0, 0), (1, 1, 1)))
    (pair,) = compare_pairs({"low": low, "high": high}, "high", unit, agreement=1e-9)
    assert (pair["verdict"], pair["difference"]) == ("cannot tell" if pair["p"] > 0.05 else "better", -0.75)
    cost.margin = -1  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"cost\.margin is -1; give a number above 0"):
        own_metric(cost)


def test_another_code_is_another_metric() -> None:
    assert own_metric(right).digest == own_metric(right).digest != own_metric(loss).digest
    assert own_metric(right, b"x = 1").digest != own_metric(right, b"x = 2").digest
    assert own_metric(np.mean).digest is not None  # no source


def test_what_goes_wrong_is_said() -> None:
    labels, p = predicted()

    def broken(labels: Any, probabilities: Any) -> float:
        return float(labels["cat"])

    with pytest.raises(ValueError, match=r"broken failed with IndexError: .* \(test_own_metric\.py, line \d+\)"):
        own_metric(broken).values(labels, p)
    with pytest.raises(ValueError, match=r"<lambda> returned 'high'; it must return a finite number"):
        own_metric(lambda labels, p: "high").values(labels, p)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="without image 1 of 40, returned nan"):
        own_metric(lambda labels, p: 1.0 if len(labels) == 40 else np.nan).values(labels, p)


def test_a_function_cannot_change_what_others_see() -> None:
    labels, p = predicted()

    def careless(labels: Any, probabilities: Any) -> float:
        probabilities[:] = 0
        return 0.5

    own_metric(careless).values(labels, p)
    assert p.sum() == pytest.approx(40)


def test_a_slow_function_is_refused_with_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, _ = predicted()
    ticks = iter(np.arange(0, 100, 2.0))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    assert check_own(own_metric(right), labels, 3, trials=3) == (
        "right is computed without each of 40 test images in 3 trials: about 4 min."
    )
    with pytest.raises(ValueError, match=r"would take 33 min at 2000\.0 ms each; more than 30 min is refused"):
        check_own(own_metric(right), labels, 3, trials=25)
