"""benchmarks/render.py: the same tables again, losses in bold."""

import json
import runpy
from dataclasses import asdict
from pathlib import Path

import pytest

from gapstone.bench import run_bench
from gapstone.bench.case_result import CaseResult
from gapstone.bench.cases import both
from gapstone.bench.measure import TimeSpread

RENDER = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "render.py"))


def spread(median):
    return TimeSpread(median, 0.99 * median, 1.01 * median, 9)


@pytest.fixture
def files(tmp_path):
    """A win and a loss, a wrong answer, a peer, a model, and calls."""
    from gapstone.bench.cases import Case

    results = []
    for case in both(Case("max", (16, 256, 28, 28), (3, 1, 1)), Case("gem", (64, 2048, 7, 7), parameter=3.0)):
        ratio = 4.0 if case.layout == "contiguous" else 0.5
        results.append(
            CaseResult(
                case, 1, "GoogLeNet", "compiled", "copy", bytes=10**6, limit_bytes=10**6, answers=100,
                seconds={"gapstone": spread(1e-3), "torch": spread(ratio * 1e-3), "limit": spread(1e-4)},
                ratios={"torch": spread(ratio), "jax": spread(3.0)},
            )
        )  # fmt: skip
    results.append(CaseResult(results[0].case, 2, "GoogLeNet", "compiled", wrong="off by 1"))
    pools, models = tmp_path / "pools.json", tmp_path / "models.json"
    run_bench.write(pools, results, 9)
    facts = json.loads(pools.read_text("utf-8"))
    model = {"model": "nin", "mode": "infer", "threads": 1, "compiled": False, "error": 0.0,
             "torch": asdict(spread(1.2)), "gapstone": asdict(spread(1.0))}  # fmt: skip
    slow = {**model, "layout": "NHWC", "ratio": asdict(spread(0.9))}
    facts |= {"models": [{**model, "layout": "NCHW", "ratio": asdict(spread(1.2))}, slow]}
    facts["calls"] = {"infer": {"4": {"nn.MaxPool2d": 2.0, "gs.pool": 70.0}}}
    del facts["results"]
    models.write_text(json.dumps(facts), "utf-8")
    return [RENDER["load"](path) for path in (pools, models)]


def test_the_page_holds_everything(files):
    page = RENDER["page"](files)
    for word in ("## pools", "GoogLeNet: forward, contiguous; CPU time of one thread", "| 4.00× (3.96 – 4.04) |",
                 "| **0.50×** (0.49 – 0.51) |", "jax / ours", "**wrong**: off by 1", "wall time with 2 threads",
                 "| **0.90×** (0.89 – 0.91) |", "| 8×4×4 | 2.0 | 70.0 |"):  # fmt: skip
        assert word in page
    widths = {line.count("|") for line in page.splitlines() if "max 3×3 s1" in line and "wrong" not in line}
    assert len(widths) == 1


def test_the_readme_is_the_same_when_rendered_again(files):
    text = "before\n\n<!-- bench -->\nold\n<!-- /bench -->\n\nafter\n"
    once = RENDER["put"](text, RENDER["short"](files))
    assert RENDER["put"](once, RENDER["short"](files)) == once
    assert "| max 3×3 s1 | 16×256×28×28 | 4.00× | 4.00× | **0.50×** | **0.50×** |" in once
    assert "| nin | infer | 1.20× | **0.90×** |" in once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    with pytest.raises(ValueError, match="<!-- bench -->"):
        RENDER["put"]("no markers", "table")
