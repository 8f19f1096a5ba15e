"""Probabilities as trials store them; the metric that was asked for, found or refused before anything is trained."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gapstone.comparing import trial_measures
from gapstone.comparing.chosen_metric import asked_metric, check_metric
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.trial_measures import Answers
from gapstone.statistics.metrics import METRICS, find_metric, metric_names


def test_where_probabilities_are_many_the_values_of_metrics_are_stored(monkeypatch):
    rng = np.random.default_rng(0)
    logits, labels = torch.from_numpy(8 * rng.normal(size=(60, 7))).float(), rng.integers(0, 7, 60)
    answers = Answers.of(logits)
    whole = answers.stored(labels)
    assert whole.keys() == {"answer", "confidence", "log_probabilities"}
    assert (whole["answer"] == whole["log_probabilities"].argmax(1)).all()
    assert whole["log_probabilities"].dtype == np.float32
    monkeypatch.setattr(trial_measures, "MOST_PROBABILITIES", 400)
    few = answers.stored(labels)
    assert "log_probabilities" not in few
    trial = SimpleNamespace(labels=range(7))
    test = {"test": np.arange(60)}
    stored, computed = (FinishedTrial(trial, {}, arrays | test) for arrays in (few, whole))
    for name in metric_names(7):
        metric = find_metric(name)
        assert stored.values(metric, labels) == pytest.approx(computed.values(metric, labels)), name
    with pytest.raises(ValueError, match="top-2 accuracy needs the probabilities of all classes, which are not stored"):
        stored.values(find_metric("top2"), labels)


def test_a_probability_of_nearly_one_and_of_nearly_none_keep_their_order():
    answers = Answers.of(torch.tensor([[0.0, 30.0], [0.0, 25.0], [0.0, 500.0]]))
    p = np.exp(answers.log_probabilities.astype(float))
    assert p[0, 1] > p[1, 1]
    assert METRICS["nll"].values(np.zeros(3, int), p) == pytest.approx([30, 25, 500])


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("top3", "--metric top3 of 3 classes is always 100 %"),
        ("auroc", "a fold has test images of one class only"),
        (lambda labels, probabilities: 1 / 0, "<lambda> failed on made-up probabilities with ZeroDivisionError"),
    ],
)
def test_a_metric_that_cannot_be_computed_is_refused_before_anything_is_trained(metric, said):
    labels = np.repeat([0, 1, 2], 20)
    with pytest.raises(ValueError, match=re.escape(said)):
        check_metric(asked_metric(metric), labels, [np.arange(20), np.arange(20, 60)], 3, 4, print)


def test_a_function_in_a_file(tmp_path):
    (tmp_path / "cost.py").write_text("def cost(labels, probabilities):\n    return 1.0\ncost.lower_is_better = True\n")
    metric = asked_metric(f"{tmp_path / 'cost.py'}:cost")
    assert (metric.name, metric.unit.lower_is_better) == ("own:cost", True)
    (tmp_path / "cost.py").write_text("def cost(labels, probabilities):\n    return 2.0\n")
    assert asked_metric(f"{tmp_path / 'cost.py'}:cost").digest != metric.digest
    with pytest.raises(ValueError, match=r"has no function 'price'; it has cost\."):
        asked_metric(f"{tmp_path / 'cost.py'}:price")
    (tmp_path / "broken.py").write_text("import nothing_like_it")
    with pytest.raises(ValueError, match=r"broken\.py cannot be imported: ModuleNotFoundError"):
        asked_metric(f"{tmp_path / 'broken.py'}:cost")
    with pytest.raises(ValueError, match=r"missing\.py"):
        asked_metric(f"{tmp_path / 'missing.py'}:cost")
