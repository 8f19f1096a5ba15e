"""Random arguments: the right answer or a clear error, never a crash, and never a look outside the map.

`python -m tests.contract.test_fuzz 0 10000` runs so many, and names the seed it is at, so that a crash can be repeated.
The maps lie between pages that may not be touched: one number read too far ends the process.
"""

import math
import random
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import pytest
import torch

import gapstone as gs
from gapstone.loops.choose_loop import Choice
from gapstone.pooling import pool_function
from gapstone.regions.places import Intervals, Rectangles
from tests.guarded import guarded

POOLS = ["mean", "sum", "max", "min", "gem", "lp", "l2", "logsumexp", "softmax", "variance", "std"]


def number(r: random.Random) -> int:
    return r.choice([1, 1, 1, 2, 2, 3, 4, 5, 7, 0, -1, 300])


def region(r: random.Random, sizes: tuple[int, ...], images: int) -> gs.Window:
    n = len(sizes)

    def per_axis(least: int = 1) -> int | tuple[int, ...]:
        return r.choice([number(r), max(number(r), least), tuple(max(least, number(r)) for _ in range(n))])

    kind = r.randrange(8)
    if kind < 4:
        padding = r.choice([0, 0, 1, per_axis(0), "same", tuple((r.randrange(4), r.randrange(4)) for _ in range(n))])
        divisor = r.choice(["positions"] * 4 + ["padded", "window", 3, -2])
        return gs.Window(
            per_axis(),
            r.choice([None, per_axis()]),
            padding,
            r.choice([1, 1, 2, per_axis()]),
            r.random() < 0.4,
            divisor,
        )
    if kind == 4:
        return gs.Grid(per_axis())
    if kind == 5:
        boxes = torch.rand(r.randrange(4), 1 + 2 * n) * r.choice([5, 30, 1000]) - r.choice([0, 20])
        boxes[:, 0] = torch.randint(0, max(images, 1), (len(boxes),)) + (r.random() < 0.05)
        return gs.Boxes(boxes, per_axis(), r.choice([1.0, 0.3, 1e6]))
    if kind == 6:
        return gs.Segments(torch.randint(-3, r.choice([1, 5, 60]), sizes), r.choice([None, 5, 60]))
    if r.random() < 0.5:
        return gs.Mask(torch.rand(images, *sizes) > r.random())
    return gs.Mask((torch.rand(sizes) - r.random() / 2).clamp(min=0))


def one(seed: int, seen: Counter) -> None:
    r = random.Random(seed)
    torch.manual_seed(seed)
    sizes = tuple(r.choice([1, 2, 3, 5, 8, 17, 33, 70]) for _ in range(r.randrange(1, 4)))
    if math.prod(sizes) > 20000:
        sizes = sizes[:2]
    images, channels = r.choice([0, 1, 2, 3]), r.choice([1, 2, 3, 8, 33])
    x = torch.randn(images, channels, *sizes)
    if r.random() < 0.3:
        x[torch.rand_like(x) < 0.05] = r.choice([math.nan, math.inf, -math.inf, 0.0])
    if x.dim() == 4 and r.random() < 0.4:
        x = x.contiguous(memory_format=torch.channels_last)
    elif r.random() < 0.2:
        x = x.transpose(-1, 1).contiguous().transpose(-1, 1) if r.random() < 0.5 else x[..., ::1].flip(-1)
    if x.numel():
        x, _area = guarded(x, r.random() < 0.7)
    name = r.choice(POOLS)
    try:
        over = region(r, sizes, images)
        place = over.place(tuple(x.shape))
        cells = 1
        if isinstance(place, Intervals):
            cells = math.prod(axis.cells for axis in place.axes or ())
        elif isinstance(place, Rectangles):
            cells = math.prod(starts.shape[1] for starts in place.starts)
        if cells * 3 * channels > 1e6:  # gigabytes
            seen["too many answers for a test"] += 1
            return
        leaf = x.detach().requires_grad_()
        out = gs.pool(leaf, name, over)
    except (ValueError, TypeError) as error:
        if len(str(error)) < 20:
            raise AssertionError(f"not clear: {error}") from error
        seen["refused with a clear error"] += 1
        return
    g = torch.randn_like(out)
    (dx,) = torch.autograd.grad(out, leaf, g)
    real, remembered = pool_function.choose_loop, pool_function._remembered
    try:
        # the reference, in float64
        pool_function.choose_loop = lambda *_: Choice("reference", "the reference")
        pool_function._remembered = {}
        exact = x.double().requires_grad_()
        right = gs.pool(exact, name, over)
        (dright,) = torch.autograd.grad(right, exact, g.double())
    finally:
        pool_function.choose_loop, pool_function._remembered = real, remembered
    assert out.shape == right.shape
    assert dx.shape == x.shape
    if not out.numel() or not x.numel():
        seen["empty"] += 1
        return
    finite = right.isfinite()
    scale = x[x.isfinite()].abs().max().clamp(min=1).double() if x.isfinite().any() else 1.0
    scale = scale * (math.prod(sizes) if name in ("sum", "lp") else 1) * (scale if name == "variance" else 1)
    assert torch.equal(out.isnan(), right.isnan()), "NaN"
    assert torch.equal(out[~finite & ~right.isnan()].double(), right[~finite & ~right.isnan()]), "infinities"
    assert ((out.double() - right)[finite].abs() <= 1e-4 * scale).all(), (out.double() - right)[finite].abs().max()
    if x.isfinite().all() and name not in ("std", "l2", "lp"):
        off = (dx.double() - dright).abs()
        assert (off <= 1e-3 * scale * dright.abs().max().clamp(min=1)).all(), off.max()
    seen["right"] += 1


def main(first: int, last: int) -> None:
    seen: Counter = Counter()
    wrong = []
    for seed in range(first, last):
        print(seed, end="\r", file=sys.stderr, flush=True)  # a crash leaves it standing
        try:
            one(seed, seen)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            wrong.append(f"seed {seed}: {type(error).__name__} {error} ({where.name}, line {where.lineno})")
    print(dict(seen))
    if wrong:
        print(*wrong, sep="\n")
        sys.exit(1)


@pytest.mark.slow
def test_ten_thousand_random_calls():
    command, root = [sys.executable, "-m", "tests.contract.test_fuzz", "0", "10000"], Path(__file__).parents[2]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, (run.returncode, run.stdout[-3000:], run.stderr[-3000:])
    print(run.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
