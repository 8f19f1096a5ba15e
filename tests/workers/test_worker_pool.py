"""Workers may die; the work goes on."""

import sys
import time

import pytest

from gapstone.workers.worker_pool import Lost, WorkerError, run_workers

WORK = "tests.workers.crash:work"


def test_all_answers_come_back() -> None:
    assert sorted(run_workers(WORK, list(range(100)), 1000, workers=2)) == [(i, 1000 + i) for i in range(100)]
    assert list(run_workers(WORK, [], 0)) == []


def test_the_guilty_task_is_named_and_the_rest_is_done() -> None:
    tasks = [0, "segfault", 2, "killed", 4, "exit", "print", 7]
    answers = dict(run_workers(WORK, tasks, 0, workers=1))
    assert [answers[i] for i in (0, 2, 4, 6, 7)] == [0, 2, 4, "print", 7]
    assert "segmentation fault" in answers[1].reason
    assert "killed by the system" in answers[3].reason
    assert "code 3" in answers[5].reason


def test_what_takes_too_long_is_stopped() -> None:
    start = time.monotonic()
    answers = dict(run_workers(WORK, [0, "sleep", 2], 0, workers=1, time_limit=1))
    assert answers[1] == Lost("took longer than 1 s and was stopped")
    assert (answers[0], answers[2]) == (0, 2)
    assert time.monotonic() - start < 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits address space")
def test_memory_is_limited() -> None:
    assert dict(run_workers(WORK, ["memory"], 0, memory_limit=1 << 32)) == {0: "MemoryError"}


def test_a_bug_is_no_lost_task() -> None:
    with pytest.raises(WorkerError, match="on purpose"):
        list(run_workers(WORK, [0, "raise"], 0))
    with pytest.raises(WorkerError, match="does not start"):
        list(run_workers("no_such_module:work", [0], 0))


def test_leaving_early_leaves_nothing_behind() -> None:
    answers = run_workers(WORK, [*range(50), "sleep"], 0, workers=2)
    next(answers)
    start = time.monotonic()
    answers.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 5
