"""`gapstone bench`: it measures what is right, says what is wrong, and keeps what was measured."""

import io
import json
from functools import partial

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from gapstone.bench import case_table, contenders, measure, our_call, run_bench, saved_memory, verify_answers
from gapstone.bench.case_result import CaseResult, select
from gapstone.bench.case_result import measure as measured
from gapstone.bench.cases import Case, daily
from gapstone.cli import app
from gapstone.loops.choose_loop import Choice

FEW = "max 3×3 s2|mean whole"  # few kernels to compile


def off_by_one(right):
    def wrong(*arguments, **named):
        answer, kept = right(*arguments, **named)
        return answer + 1, kept

    return wrong


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200, record=True)


def test_a_broken_expression_is_refused():
    with pytest.raises(ValueError, match="no regular expression"):
        select([], "(")


def test_a_table_and_its_numbers(console, tmp_path):
    out = tmp_path / "bench.json"
    assert run_bench.bench(console, 2, out=out, only=FEW, tiny=True)
    said = console.export_text()
    for word in ("CPU time of one thread", "forward, contiguous", "backward, channels-last", "max 3×3 s2", "2×4×6×6",
                 "quartiles", "kept B/answer", "8 against torch eager", "First calls"):  # fmt: skip
        assert word in said
    facts, results = run_bench.read(out)
    assert facts["machine"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert [one.case for one in results] == [case for case in daily(tiny=True) if case.title in FEW]
    assert [CaseResult.read(json.loads(json.dumps(one.as_json()))) for one in results] == results
    for one in results:
        assert one.seconds["gapstone"].median > 0
        assert one.ratios["torch"].low <= one.ratios["torch"].median <= one.ratios["torch"].high
        assert bool(one.kept) == (one.case.direction == "backward")


def test_every_case_is_the_pool_it_names(monkeypatch):
    """By the reference loop, which needs no compiling."""
    monkeypatch.setattr(our_call, "choose_loop", lambda *_: Choice("reference", "the test says so"))
    more = [Case("mean", (3, 4, 5, 6), masked=True), Case("max", (2, 4, 9), (3, 2, 1)),
            Case("mean", (2, 4, 5, 6, 7), (3, 2, 1), layout="channels-last"),
            Case("max", (2, 4, 8, 8), (2, 2, 0), keep=True), Case("max", (2, 4, 8, 8), (2, 2, 0), dtype="bfloat16"),
            Case("max", (2, 4, 8, 8), (3, 2, 1), dtype="uint8")]  # fmt: skip
    for case in daily(tiny=True) + more:
        found = measured(case, 1, 0.0, 1)
        assert found.wrong is None, case
        assert found.seconds, case
        assert case_table.line(found).plain.strip().startswith(case.title)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_wrong_answer_gets_no_time_and_exit_code_1(monkeypatch, tmp_path, direction):
    monkeypatch.setattr(our_call, "choose_loop", lambda *_: Choice("reference", "the test says so"))
    if direction == "forward":
        monkeypatch.setattr(contenders, "ours", off_by_one(our_call.ours))
    else:
        monkeypatch.setattr(contenders, "differentiable", lambda *given: our_call.differentiable(*given) * 1.01)
    monkeypatch.setattr(run_bench, "bench", partial(run_bench.bench, tiny=True))
    out = tmp_path / "bench.json"
    told = CliRunner().invoke(app, ["bench", "--quick", "--only", f"gem p=3 .*{direction}, cont", "--json", str(out)])
    assert told.exit_code == 1
    assert "wrong: off by" in told.output
    assert "×  " not in told.output
    assert "WRONG: gem p=3 whole" in told.output
    _, (found,) = run_bench.read(out)
    assert found.wrong
    assert not found.seconds
    assert not found.ratios


def test_a_wrong_forward_with_a_right_gradient_is_wrong(monkeypatch):
    monkeypatch.setattr(our_call, "choose_loop", lambda *_: Choice("reference", "the test says so"))
    monkeypatch.setattr(contenders, "differentiable", lambda *given: our_call.differentiable(*given) + 1)
    found = measured(Case("mean", (2, 4, 6, 6), direction="backward"), 1, 0.0, 1)
    assert found.wrong
    assert found.wrong.startswith("the forward that keeps is off by")
    assert not found.seconds


def test_a_peer_that_is_wrong_or_missing_is_not_timed(monkeypatch):
    monkeypatch.setattr(our_call, "choose_loop", lambda *_: Choice("reference", "the test says so"))

    def missing(job):
        raise ImportError("no such library")

    def wrong(job):
        return lambda: job.x.mean((2, 3)) * 1.01

    def right(job):
        return lambda: job.x.mean((2, 3))

    def broken(job):
        raise RuntimeError("its compiler\nfell over")

    others = {"missing": missing, "wrong": wrong, "right": right, "broken": broken}
    found = measured(Case("mean", (2, 4, 6, 6)), 2, 0.0, 1, others)
    assert set(found.ratios) == {"torch", "right"}
    assert found.notes["missing"] == "no such library"
    assert found.notes["wrong"].startswith("wrong: off by")
    said = case_table.line(found).plain
    assert "wrong wrong: off by" in said
    assert "broken failed: RuntimeError: its compiler" in said
    assert "–: missing" in said


def test_into_an_existing_tensor_is_refused_by_loops_that_cannot(monkeypatch):
    monkeypatch.setattr(our_call, "choose_loop", lambda *_: Choice("reference", "the test says so"))
    found = measured(Case("max", (2, 4, 8, 8), (2, 2, 0), into=True), 2, 0.0, 1)
    assert found.refused == "the reference loop writes into no given tensor"
    assert "not timed" in case_table.line(found).plain


def test_an_interrupted_run_keeps_what_it_has(console, monkeypatch, tmp_path):
    def interrupted(case, *rest):
        if case.title == "max 3×3 s1":
            raise KeyboardInterrupt
        return CaseResult(case, 1, wrong="the test says so")

    monkeypatch.setattr(run_bench, "measure", interrupted)
    out = tmp_path / "bench.json"
    with pytest.raises(KeyboardInterrupt):
        run_bench.bench(console, out=out, tiny=True)
    said = console.export_text()
    assert "max 2×2 s2" in said
    assert "First calls" in said
    assert [one.case.title for one in run_bench.read(out)[1]] == ["max 3×3 s2", "max 2×2 s2"]


def test_nothing_to_measure_is_an_error(console):
    with pytest.raises(ValueError, match="no case matches 'mux'"):
        run_bench.bench(console, only="mux")


def test_losses_are_marked():
    def of(median):
        return measure.TimeSpread(median, median, median, 5)

    def result(ratio):
        return CaseResult(Case("max", (2, 4, 6, 6)), 1, bytes=1, limit_bytes=1, limit="read", loop="compiled",
                      seconds={"gapstone": of(1.0), "torch": of(ratio), "limit": of(1.0)},
                      ratios={"torch": of(ratio)})  # fmt: skip

    assert "◄ slower" in case_table.line(result(0.5)).plain
    assert "slower" not in case_table.line(result(2.0)).plain
    assert "alike" in case_table.line(result(1.0)).plain
    assert "1 faster, 1 alike, 1 slower" in case_table.summary([result(0.5), result(1.0), result(2.0)])[0]


def test_disturbed_samples_count_only_where_there_is_nothing_else():
    calm = [measure.Sample(1.0, False)] * 5
    busy = [measure.Sample(9.0, True)] * 5
    assert measure.spread(calm + busy) == measure.TimeSpread(1.0, 1.0, 1.0, 5)
    assert measure.spread(busy).disturbed
    assert measure.ratio(busy + calm, calm + calm).median == 1.0


def test_what_is_wrong():
    right = (torch.tensor([1.0, 2.0], dtype=torch.float64),)
    good, plain = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])
    assert verify_answers.wrong(good, right, plain, torch.float32) is None
    assert "off by" in verify_answers.wrong(torch.tensor([1.0, 2.1]), right, plain, torch.float32)
    assert "off by" in verify_answers.wrong(torch.tensor([1.0, torch.nan]), right, plain, torch.float32)
    assert "shape" in verify_answers.wrong(good[:1], right, plain, torch.float32)


def test_kept_memory_is_counted_once():
    x = torch.rand(4, 8)
    found = saved_memory.saved_memory_of(lambda x: torch.exp(x) * x, x)
    assert found == saved_memory.SavedMemory(
        beside=4 * 8 * 4, x=True, answer=False
    )  # exp's answer, which the product keeps too
    assert saved_memory.saved_memory_of(torch.exp, x) == saved_memory.SavedMemory(0, False, True)
