"""What is said of times: nothing that lies within the spread of the rounds, and that the machine was busy."""

import itertools
import time

import pytest

from gapstone.comparing.speed_differences import against, caution
from gapstone.runtime import timing
from gapstone.runtime.environment import BackgroundLoad
from gapstone.runtime.timing import Timed, pace, ratio, side_by_side, spread, take_turns, unsteady


def test_median_quartiles_and_ratios_round_by_round():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert spread([2.0]) == {"median": 2.0, "low": 2.0, "high": 2.0}
    # a load that doubles every other round falls on both: their ratio is steady where their times are not
    ours = [3.0, 6.0] * 5
    theirs = [2.0, 4.0] * 5
    assert unsteady(spread(ours))
    assert ratio(ours, theirs) == {"median": 1.5, "low": 1.5, "high": 1.5}


@pytest.mark.parametrize(
    ("low", "high", "said"), [(1.5, 1.7, "slower"), (0.5, 0.9, "faster"), (0.9, 2.0, "alike"), (1.001, 1.015, "alike")]
)
def test_no_difference_within_the_spread(low, high, said):
    assert pace({"median": (low + high) / 2, "low": low, "high": high}) == said


def test_everybody_runs_once_a_round_after_one_to_warm_up():
    ran = []
    timed = take_turns({name: lambda name=name: ran.append(name) for name in "abc"}, rounds=4)
    assert [len(timed.seconds[name]) for name in "abc"] == [4, 4, 4]
    rounds = [ran[i : i + 3] for i in range(0, len(ran), 3)]
    assert len(rounds) == 5
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1, "always in one order"
    assert len(take_turns({"a": lambda: None}, rounds=100, least=7, longest=0).seconds["a"]) == 7


def test_two_files_in_a_sentence():
    steady = Timed({"int8": [0.004, 0.0041, 0.0039], "float": [0.006, 0.0061, 0.0062]}, others=0.0)
    assert side_by_side(steady) == (
        "int8 4 ms (quartiles 3.95 to 4.05), float 6.1 ms (6.05 to 6.15), medians of 3 interleaved rounds."
    )
    noise = Timed({"int8": [0.012, 0.03, 0.009], "float": [0.021, 0.011, 0.024]}, others=1.6)
    said = side_by_side(noise)
    assert "they do not differ beyond the spread of the rounds" in said
    assert "The machine was busy (other programs kept 1.6 of its cores busy)" in said


def speed(median, low, high, ratio=None, others=0.0):
    about = None if ratio is None else dict(zip(("median", "low", "high"), ratio, strict=True))
    return {"median": median, "low": low, "high": high, "ratio": about, "others": others, "rounds": 41}


def test_heads_against_the_baseline():
    heads = [
        {"head": "gap", "ms_per_image": speed(0.6, 0.59, 0.61)},
        {"head": "fc", "ms_per_image": speed(1.0, 0.9, 1.1, (1.62, 1.5, 1.7))},
        {"head": "gmp", "ms_per_image": speed(0.7, 0.65, 0.75, (1.1, 0.95, 1.3))},
        {"head": "nin", "ms_per_image": None},
    ]
    assert against(heads, "gap") == (
        "Time per image against gap (median of 41 interleaved rounds): fc 1.62×; gmp does not differ beyond the spread "
        "of the rounds."
    )
    assert caution(heads) is None
    heads[0]["ms_per_image"] = speed(21, 0.34, 36)
    assert "the rounds differ widely" in caution(heads)
    heads[0]["ms_per_image"] = speed(0.6, 0.59, 0.61, others=1.25)
    assert "other programs kept 1.2 of its cores busy" in caution(heads)
    assert against([{"head": "gap", "ms_per_image": None}], "gap") == ""


def test_work_of_others_is_what_the_cores_did_without_us(monkeypatch):
    clock, own, cores = itertools.count(0, 10), itertools.count(0, 4), itertools.count(0, 13)
    monkeypatch.setattr("gapstone.runtime.environment._busy_seconds", lambda: next(cores))
    monkeypatch.setattr(time, "process_time", lambda: next(own))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    with BackgroundLoad() as load:
        pass
    assert load.cores == pytest.approx((13 - 4) / 10)
    monkeypatch.setattr("gapstone.runtime.environment._busy_seconds", lambda: None)
    with BackgroundLoad() as load:
        pass
    assert load.cores is None
    assert timing.busy(None, []) is None
