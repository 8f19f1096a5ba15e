"""AUROC's values against the example of DeLong, DeLong & Clarke-Pearson 1988, as SAS's manual has it."""

import numpy as np
import pytest

from gapstone.statistics.ranking import auroc_of

# Of 49 patients with ovarian cancer and an obstruction of the bowel the 43 of whom all is known: albumin, protein, K-G
# score, outcome. Source: DeLong et al., Biometrics 44, 837; SAS/STAT, PROC LOGISTIC, example 8.
TEXT = """
    3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
    3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
    4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
    4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
    2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
PATIENTS = np.array(TEXT.split(), float).reshape(-1, 4)
ALBUMIN, PROTEIN, SCORE, OUTCOME = PATIENTS.T
BETTER = OUTCOME == 1


def error(values: np.ndarray) -> float:
    """DeLong's standard error: of positives and of negatives, each with its own mean and n − 1."""
    parts = (values[chosen] * chosen.sum() / len(values) for chosen in (BETTER, ~BETTER))
    return float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)))


@pytest.mark.parametrize(
    ("score", "area", "standard_error"),
    [(ALBUMIN, 0.7366, 0.0927), (10 - SCORE, 0.7258, 0.1028), (PROTEIN, 0.6478, 0.1000)],
)
def test_areas_and_their_errors(score: np.ndarray, area: float, standard_error: float) -> None:
    values = auroc_of(BETTER, score)
    assert values.mean() == pytest.approx(area, abs=5e-5)
    assert error(values) == pytest.approx(standard_error, abs=5e-5)


@pytest.mark.parametrize(
    ("score", "difference", "standard_error"), [(ALBUMIN, 0.0108, 0.0953), (PROTEIN, -0.0780, 0.1046)]
)
def test_differences_to_the_k_g_score(score: np.ndarray, difference: float, standard_error: float) -> None:
    values = auroc_of(BETTER, score) - auroc_of(BETTER, 10 - SCORE)
    assert values.mean() == pytest.approx(difference, abs=5e-5)
    assert error(values) == pytest.approx(standard_error, abs=5e-5)
