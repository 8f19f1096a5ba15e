"""How often the same test images are compared in a folder, and what counts as the same look."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gapstone.comparing.looks import FILE, record_look, said
from gapstone.statistics.metrics import find_metric
from gapstone.storage.sealed_json import read_sealed


@dataclass(frozen=True)
class FakeTrial:
    head: str
    seed: int
    data: str
    quick: bool = False

    @property
    def id(self) -> str:
        return f"{self.head} {self.seed} {self.data} {self.quick}"


def plan(
    heads: tuple[str, ...] = ("gap", "fc"),
    seeds: int = 5,
    baseline: str = "gap",
    data: str = "a",
    quick: bool = False,
    metric: str = "accuracy",
    patients: list[int] | None = None,
) -> Any:
    trials = [FakeTrial(head, seed, data, quick) for head in heads for seed in range(seeds)]
    request = SimpleNamespace(heads=heads, seeds=seeds, folds=None, margin=None)
    source = SimpleNamespace(grouping=patients and "--group patient")
    prepared = SimpleNamespace(hash=data, source=source, groups=np.array(patients or range(4)))
    return SimpleNamespace(
        baseline=baseline, metric=(find_metric(metric), None), trials=trials, request=request, prepared=prepared
    )


def test_what_is_another_look(tmp_path: Path) -> None:
    logged: list[str] = []

    def look(made: Any) -> int:
        return record_look(made, tmp_path, logged.append)

    assert look(plan()) == 1
    assert look(plan()) == 1  # the same command again
    assert look(plan(quick=True)) == 1
    turned = plan()
    turned.trials = turned.trials[::-1]
    assert look(turned) == 1
    assert look(plan(seeds=10)) == 2
    assert look(plan(seeds=10, baseline="fc")) == 3
    assert look(plan(("gap", "fc", "nin"), seeds=10)) == 4
    assert look(plan(metric="macro_f1")) == 5
    assert look(plan(patients=[0, 0, 1, 1])) == 6  # the same trials, other verdicts
    assert look(plan(patients=[0, 0, 1, 2])) == 7
    assert look(plan(data="b")) == 1
    assert look(plan(seeds=10)) == 2  # as it was
    looks = read_sealed(tmp_path / FILE, "looks")["looks"]
    assert [(entry["seeds"], entry["baseline"]) for entry in looks[:3]] == [(5, "gap"), (10, "gap"), (10, "fc")]
    assert logged == []
    (tmp_path / FILE).write_text("{}")
    assert look(plan(seeds=20)) == 1
    assert "how often these images were compared before is not known" in logged[0]


def test_a_look_that_is_not_the_first_is_told() -> None:
    assert said(1, 0.95) is None
    assert "compared 2 times in this folder: verdicts are made at 1.25 % instead of 5 %" in str(said(2, 0.95))
