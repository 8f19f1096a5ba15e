"""`--margin` decides what is equivalent and is another look; `--patience` is for networks that are trained whole."""

from dataclasses import replace

import numpy as np
import pytest

from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.looks import record_look
from gapstone.statistics.compare_pairs import compare_pairs
from gapstone.statistics.metrics import METRICS
from gapstone.training.loop import TrainSettings
from gapstone.training.training_data import TrainOptions
from tests.comparing.small_comparison import planned_comparison


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return planned_comparison(tmp_path_factory.mktemp("margin"), ("gap", "gmp"), 2)


def with_margin(plan, margin):
    return replace(plan, request=replace(plan.request, margin=margin))


def test_a_margin_is_the_metrics_in_its_unit(plan):
    metric, _ = plan.metric
    assert metric.unit.margin == 0.005
    asked, _ = with_margin(plan, 2.0).metric
    assert (asked.to_json()["margin"], asked.unit.aims) == (2.0, (0.2, 0.08, 0.04, 0.02))
    assert replace(asked, unit=metric.unit) == metric
    assert METRICS["nll"].with_margin(0.05).to_json()["margin"] == 0.05
    assert METRICS["brier"].with_margin(0.5).unit.aims == (1.0, 0.5)  # 5 and 2 are more than its range
    assert METRICS["accuracy"].with_margin(None) is METRICS["accuracy"]


def test_heads_within_the_margin_are_equivalent():
    rng = np.random.default_rng(0)
    right = rng.random((2, 5, 400)) < 0.9
    heads = {name: dict(enumerate(values.astype(float))) for name, values in zip("ab", right, strict=True)}
    for margin, verdict in ((0.5, "cannot tell"), (8.0, "equivalent")):
        unit = METRICS["accuracy"].with_margin(margin).unit
        (pair,) = compare_pairs(heads, "a", unit=unit)
        assert (pair["margin"], pair["verdict"]) == (margin, verdict)


def test_another_margin_is_another_look(plan, tmp_path):
    looks = [record_look(with_margin(plan, margin), tmp_path, print) for margin in (None, None, 2.0, 2.0, 3.0, None)]
    assert looks == [1, 1, 2, 2, 3, 1]
    assert with_margin(plan, 2.0).trials == plan.trials


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_margins_that_make_no_sense(margin):
    with pytest.raises(ValueError, match=r"--margin .*: must be more than 0"):
        CompareRequest(TrainOptions("digits"), margin=margin).checked()


def test_patience(tmp_path):
    with pytest.raises(ValueError, match="--patience 0: must be at least 1"):
        TrainOptions("digits", patience=0)
    with pytest.raises(ValueError, match=r"--patience 3 ends the training of a whole network early, and .* frozen"):
        planned_comparison(tmp_path, ("gap",), 1, {"patience": 3})


def test_a_patience_of_ones_own(tmp_path):
    asked = planned_comparison(tmp_path, ("gap",), 1, {"patience": 3, "epochs": 9}, finetune=True).trials[0]
    assert (asked.settings.patience, asked.settings.epochs) == (3, 9)
    assert asked.id != replace(asked, settings=replace(asked.settings, patience=10)).id
    assert TrainSettings.patience == 10  # what trials without --patience have, whose ids stay
