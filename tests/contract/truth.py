"""What the contract checks against: formulas in float64, and which positions belong to which answer.

Written from the papers and from the documentation of the regions, not from the code they check.
"""

import math
from functools import cache
from itertools import product

import torch

import gapstone as gs

# every formula pools the last axis


def norm(x, p):
    top = x.abs().amax(-1, keepdim=True)
    return top[..., 0] * ((x.abs() / torch.where(top > 0, top, 1.0)) ** p).sum(-1) ** (1 / p)


def gem(x, p=3.0):
    x = x.clamp(min=1e-6)
    top = x.amax(-1, keepdim=True)
    return top[..., 0] * ((x / top) ** p).mean(-1) ** (1 / p)


def attention(x, score):
    weight = torch.softmax(score, -1)
    return (x * weight).sum(-1)


FORMULAS = {
    "mean": lambda x: x.mean(-1),
    "sum": lambda x: x.sum(-1),
    "max": lambda x: x.max(-1).values,
    "min": lambda x: x.min(-1).values,
    "gem": gem,
    "l2": lambda x: norm(x, 2.0),
    "lp": lambda x, p=2.0: norm(x, p),
    "logsumexp": lambda x, r=5.0: (torch.logsumexp(r * x, -1) - math.log(x.shape[-1])) / r,
    "softmax": lambda x, r=1.0: (x * torch.softmax(r * x, -1)).sum(-1),
    "topk": lambda x, k: x.sort(dim=-1, descending=True, stable=True).values[..., :k].mean(-1),
    "variance": lambda x, correction=0.0: ((x - x.mean(-1, keepdim=True)) ** 2).sum(-1) / (x.shape[-1] - correction),
    "std": lambda x, correction=0.0: FORMULAS["variance"](x, correction).sqrt(),
    "attention": attention,
    "median": lambda x: torch.quantile(x, 0.5, -1),
    "quantile": lambda x, q: torch.quantile(x, q, -1),
}
ONE_OF_EACH = ("mean", "max", "gem", "topk", "attention", "median", "catavgmax", ("std", "max"))
"""A pool of each kind: a sum, a position, a parameter, a list, scores, one of the whole map alone, compositions."""
NEEDED = {"topk": {"k": 3}, "quantile": {"q": 0.3}}
"""What a call must give."""


def given(name, channels, dtype=torch.float64):
    """The parameters a call of this pool needs."""
    if name == "attention":
        return {"query": torch.linspace(-2, 2, channels, dtype=dtype)}
    return NEEDED.get(name, {})


# which positions an answer has


def windows(length, size, stride=None, before=0, after=0, dilation=1, ceil_mode=False):
    """Per window its positions on the map."""
    stride = stride or size
    span = (size - 1) * dilation + 1
    starts = [s for s in range(-before, length, stride) if s + span <= length + after]
    if ceil_mode:
        more = starts[-1] + stride if starts else -before
        over = more + span - length - after
        # it hangs over by less than a stride, and does not start on the padding behind
        if 0 < over < stride and more < length:
            starts.append(more)
    return [[p for p in range(s, s + span, dilation) if 0 <= p < length] for s in starts]


def grid(length, cells):
    return [list(range(i * length // cells, -(-(i + 1) * length // cells))) for i in range(cells)]


def boxes(axes, sizes):
    """Every combination of one list of positions per axis, as numbers of positions of the flattened map."""
    strides = [math.prod(sizes[a + 1 :]) for a in range(len(sizes))]
    return [
        [sum(p * s for p, s in zip(at, strides, strict=True)) for at in product(*parts)] for parts in product(*axes)
    ]


def pooled(name, x, answers, **parameters):
    """The formula on each answer's positions: (N, C, answers) in float64; empty lists give NaN."""
    flat = x.double().flatten(2)
    score = None
    if name == "attention":
        query = parameters.pop("query").double()
        score = torch.einsum("ncp,c->np", flat, query)[:, None] / math.sqrt(x.shape[1])
    out = torch.full((*flat.shape[:2], len(answers)), math.nan, dtype=torch.float64)
    for length in {len(at) for at in answers} - {0}:  # those of a length at once: a third of the time
        these = [i for i, at in enumerate(answers) if len(at) == length]
        at = torch.tensor([answers[i] for i in these])
        scores = () if score is None else (score[..., at],)
        out[..., these] = FORMULAS[name](flat[..., at], *scores, **parameters)
    return out


@cache
def regions(sizes):
    """For a map of these sizes: region, its answers' positions, and the answer's shape after (N, C); by name."""
    n = len(sizes)
    every = list(range(math.prod(sizes)))
    small = tuple(min(3, s) for s in sizes)
    pad = tuple(s // 2 for s in small)
    found = {"Whole": [(gs.Whole(), [every], ())], "Window": [], "Grid": [], "Pyramid": [], "Mask": [], "Segments": []}

    def window(region, axes):
        found["Window"].append((region, boxes(axes, sizes), tuple(map(len, axes))))

    window(gs.Window(small), [windows(s, k) for s, k in zip(sizes, small, strict=True)])
    window(gs.Window(small, 1, pad), [windows(s, k, 1, p, p) for s, k, p in zip(sizes, small, pad, strict=True)])
    window(
        gs.Window(small, 2, pad, ceil_mode=True),
        [windows(s, k, 2, p, p, 1, True) for s, k, p in zip(sizes, small, pad, strict=True)],
    )
    sides = tuple((k - 1, 0) for k in small)
    window(gs.Window(small, 1, sides), [windows(s, k, 1, k - 1, 0) for s, k in zip(sizes, small, strict=True)])
    window(
        gs.Window(2, 1, 1, dilation=2, ceil_mode=True),
        [windows(s, 2, 1, 1, 1, 2, True) for s in sizes],
    )
    # dilated windows that begin before the map: the first position of each on the map does not ascend
    window(gs.Window(5, 1, "same", dilation=3), [windows(s, 5, 1, 6, 6, 3) for s in sizes])
    same = []
    for s in sizes:
        total = max((-(-s // 2) - 1) * 2 + 3 - s, 0)
        same.append(windows(s, 3, 2, total // 2, total - total // 2))
    window(gs.Window(3, 2, "same"), same)
    for cells in (1, 2, 5):
        axes = [grid(s, cells) for s in sizes]
        found["Grid"].append((gs.Grid(cells), boxes(axes, sizes), (cells,) * n))
    levels = [boxes([grid(s, cells) for s in sizes], sizes) for cells in (1, 3)]
    found["Pyramid"].append((gs.Pyramid((1, 3)), levels[0] + levels[1], (len(levels[0]) + len(levels[1]),)))
    # the last position is always in, so that no answer is empty
    mask = torch.arange(len(every)).reshape(sizes) % 3 != 0
    mask.view(-1)[-1] = True
    found["Mask"].append((gs.Mask(mask), [mask.flatten().nonzero()[:, 0].tolist()], ()))
    labels = torch.arange(len(every)).reshape(sizes) % 4 - 1
    many = max(int(labels.max()) + 1, 1)
    at = [(labels.flatten() == k).nonzero()[:, 0].tolist() for k in range(many)]
    found["Segments"].append((gs.Segments(labels, many), at, (many,)))
    return found
