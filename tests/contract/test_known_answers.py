"""Numbers that others print or compute: Keras' documented examples, torchvision's RoI layers, SciPy, torch.

Inputs and outputs of Keras' examples are facts of its documentation (keras.io, layers API, pooling layers). It pools
(N, *spatial, C); here they stand as (N, C, *spatial).
"""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F

import gapstone as gs

LINE = [1.0, 2.0, 3.0, 4.0, 5.0]
SQUARE = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]
WIDE = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]]
BY_ONE, BY_TWO, SAME = gs.Window(2, 1), gs.Window(2, 2), gs.Window(2, 1, "same")


@pytest.fixture(autouse=True)
def _the_same_numbers_every_time():
    torch.manual_seed(0)


KERAS = [
    ("max", LINE, BY_ONE, [2.0, 3.0, 4.0, 5.0]),
    ("max", LINE, BY_TWO, [2.0, 4.0]),
    ("max", LINE, SAME, [2.0, 3.0, 4.0, 5.0, 5.0]),
    ("max", SQUARE, BY_ONE, [[5.0, 6.0], [8.0, 9.0]]),
    ("max", WIDE, BY_TWO, [[6.0, 8.0]]),
    ("max", SQUARE, SAME, [[5.0, 6.0, 6.0], [8.0, 9.0, 9.0], [8.0, 9.0, 9.0]]),
    ("max", [[1, 1, 2, 4], [2, 2, 3, 2], [4, 1, 1, 1], [2, 2, 1, 4]], BY_TWO, [[2, 4], [4, 4]]),
    ("mean", LINE, BY_ONE, [1.5, 2.5, 3.5, 4.5]),
    ("mean", LINE, BY_TWO, [1.5, 3.5]),
    ("mean", LINE, SAME, [1.5, 2.5, 3.5, 4.5, 5.0]),
    ("mean", SQUARE, BY_ONE, [[3.0, 4.0], [6.0, 7.0]]),
    ("mean", WIDE, BY_TWO, [[3.5, 5.5]]),
    ("mean", SQUARE, SAME, [[3.0, 4.0, 4.5], [6.0, 7.0, 7.5], [7.5, 8.5, 9.0]]),
    # Keras' own last digits are those of float32 powers: 9.000002 for 9
    ("gem", LINE, BY_ONE, [1.6509637, 2.596247, 3.5700185, 4.5548835]),
    ("gem", LINE, BY_TWO, [1.6509637, 3.5700185]),
    ("gem", LINE, SAME, [1.6509637, 2.596247, 3.5700185, 4.5548835, 5.0]),
    ("gem", SQUARE, BY_ONE, [[3.6717105, 4.546836], [6.390677, 7.3403287]]),
    ("gem", WIDE, BY_TWO, [[4.4395204, 6.184108]]),
    (
        "gem",
        SQUARE,
        SAME,
        [[3.6717105, 4.546836, 4.952891], [6.390677, 7.3403287, 7.7887416], [7.533188, 8.529311, 9.0]],
    ),
]


@pytest.mark.parametrize(("name", "x", "over", "expected"), KERAS)
def test_keras_prints(name, x, over, expected):
    answer = gs.pool(torch.tensor(x)[None, None], name, over)[0, 0]
    exact = name != "gem"
    torch.testing.assert_close(answer, torch.tensor(expected), rtol=0 if exact else 1e-6, atol=0)


def test_keras_documents_shapes():
    def shape(name, over, *sizes):
        return tuple(gs.pool(torch.rand(*sizes), name, over).shape)

    for name in ("max", "mean"):
        # MaxPooling3D and AveragePooling3D: batch 2, 3 channels, 30 x 30 x 30, size 3
        assert shape(name, gs.Window(3), 2, 3, 30, 30, 30) == (2, 3, 10, 10, 10)
        # the layers' formulas: floor((n - size) / stride) + 1, and for "same" floor((n - 1) / stride) + 1
        for n in range(1, 12):
            for size, stride in ((2, 2), (3, 2), (3, 1), (5, 3)):
                assert shape(name, gs.Window(size, stride, "same"), 1, 1, n) == (1, 1, (n - 1) // stride + 1)
                if n >= size:
                    assert shape(name, gs.Window(size, stride), 1, 1, n) == (1, 1, (n - size) // stride + 1)
        # AdaptiveAveragePooling1D(32) of 64 steps with 3 features; GlobalAveragePooling1D to 3D
        assert shape(name, gs.Grid(32), 1, 3, 64) == (1, 3, 32)
        assert shape(name, gs.Whole(), 2, 3, 4, 5) == (2, 3)
        assert shape(name, gs.Whole(), 2, 3, 4, 5, 6) == (2, 3)


def test_keras_global_pools():
    x = torch.tensor(SQUARE)[:, None]
    assert gs.pool(x, "max").tolist() == [[3], [6], [9]]
    x = torch.arange(24.0).reshape(2, 3, 4)
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1]]).bool()
    assert gs.pool(x, "mean", gs.Mask(mask)).tolist() == [[0.5, 4.5, 8.5], [14, 18, 22]]


# torchvision: RoI pool and RoI align


def torchvision(name):
    return getattr(pytest.importorskip("torchvision.ops", reason="RoI layers to compare with: the extra [zoo]"), name)


def random_boxes(many, seed, grain):
    """(R, 5): image, x1, y1, x2, y2 in units of 1/4 position on a map of 11 x 17; many partly outside, some quite.

    Corners are multiples of `grain`: of 2, so that halves of a position are rounded too.
    """
    roll = torch.Generator().manual_seed(seed)
    low = torch.rand(many, 2, generator=roll, dtype=torch.float64) * torch.tensor([72.0, 48.0]) - 12
    size = torch.rand(many, 2, generator=roll, dtype=torch.float64).square() * torch.tensor([80.0, 56.0])
    image = torch.randint(0, 3, (many, 1), generator=roll)
    return torch.cat([image, *((v / grain).round() * grain for v in (low, low + size))], 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1, 2, (3, 5), 7])
def test_torchvision_roi_pool(size, dtype, tried):
    roi_pool = torchvision("roi_pool")
    x = torch.randn(3, 4, 11, 17, dtype=dtype)
    boxes = random_boxes(400, 0, 2.0).to(dtype)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    answer, expected = gs.pool(mine, "max", gs.Boxes(boxes, size, 0.25)), roi_pool(theirs, boxes, size, 0.25)
    # a cell without positions: gapstone's answer over nothing, torchvision's 0
    nothing = answer == -math.inf
    assert 0 < nothing.sum() < nothing.numel() / 2
    assert torch.equal(answer.masked_fill(nothing, 0.0), expected)
    tried["RoI pool: cells as in torchvision"] += int((~nothing).sum())
    tried["RoI pool: cells without positions, −∞ where torchvision gives 0"] += int(nothing.sum())
    weight = torch.randn(answer.shape, dtype=dtype)
    answer.backward(weight)
    expected.backward(weight)
    near = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=near, atol=near)


def test_torchvision_roi_pool_reads_one_position_too_far():
    roi_pool = torchvision("roi_pool")
    # 57 positions in 7 cells: 7 * float32(57 / 7) is above 57, so torchvision's last cell goes on to position 57
    x, box = torch.arange(60.0).reshape(1, 1, 1, 60), torch.tensor([[0.0, 0, 0, 56, 0]])
    answer, expected = gs.pool(x, "max", gs.Boxes(box, (1, 7))), roi_pool(x, box, (1, 7))
    assert answer.flatten().tolist() == [8, 16, 24, 32, 40, 48, 56]
    assert expected.flatten().tolist() == [8, 16, 24, 32, 40, 48, 57]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling", [1, 2, 3])
def test_torchvision_roi_align(aligned, sampling, tried):
    roi_align = torchvision("roi_align")

    def both(dtype, size):
        """Answers and gradients, gapstone's and torchvision's."""
        found = []
        for pool in (
            lambda x: gs.pool(x, "mean", gs.Boxes(boxes.to(dtype), size, 0.25, sampling, aligned)),
            lambda x: roi_align(x, boxes.to(dtype), size, 0.25, sampling, aligned),
        ):
            x = numbers.to(dtype, copy=True).requires_grad_()
            answer = pool(x)
            answer.backward(weight.to(dtype).expand(answer.shape))
            found.append((answer.detach(), x.grad))
        return found

    numbers = torch.randn(3, 4, 11, 17).double()
    # not on multiples: at exactly one position outside, the value jumps to 0
    boxes = random_boxes(300, sampling, 0.001).float().double()
    weight = torch.randn(300, 4, 1, 1).double()
    for size in (1, 2, (3, 5), 7):
        truth, same = both(torch.float64, size)
        mine, theirs = both(torch.float32, size)
        for right, alike, answer, expected in zip(truth, same, mine, theirs, strict=True):
            torch.testing.assert_close(right, alike, rtol=1e-12, atol=1e-12)
            ulp = torch.finfo(torch.float32).eps * right.abs().max()
            assert (answer - right).abs().max() <= 2 * (expected - right).abs().max() + ulp
        tried["RoI align: cells as in torchvision"] += right.numel()


def test_torchvision_takes_a_list_of_boxes_and_none():
    roi_align, roi_pool = torchvision("roi_align"), torchvision("roi_pool")
    x, boxes = torch.randn(3, 2, 9, 9), [torch.tensor([[0.0, 1.0, 5.0, 6.0], [2, 2, 8, 8]]), torch.zeros(0, 4)]
    boxes.append(torch.tensor([[1.0, 0.0, 7.0, 3.0]]))
    assert torch.equal(gs.pool(x, "max", gs.Boxes(boxes, 2)), roi_pool(x, boxes, 2))
    torch.testing.assert_close(gs.pool(x, "mean", gs.Boxes(boxes, 3, 0.5, 2)), roi_align(x, boxes, 3, 0.5, 2, True))
    none = torch.zeros(0, 5)
    assert gs.pool(x, "max", gs.Boxes(none, 2)).shape == roi_pool(x, none, 2).shape == (0, 2, 2, 2)


# torch


def test_torch_quantile_and_median():
    for n in (1, 2, 3, 8, 31):
        x = torch.randn(2, 3, n, dtype=torch.float64)
        for q in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
            torch.testing.assert_close(gs.pool(x, "quantile", q=q), torch.quantile(x, q, 2), rtol=1e-14, atol=1e-14)
        middle = x.sort(2).values[..., (n - 1) // 2 : n // 2 + 1].mean(2)
        torch.testing.assert_close(gs.pool(x, "median"), middle, rtol=1e-14, atol=1e-14)
        # of an even number torch takes the lower of the two in the middle
        assert torch.equal(gs.pool(x, "median"), x.median(2).values) == (n % 2 == 1)
    assert gs.pool(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), "median").item() == 2.5
    assert gs.pool(torch.tensor([[[1.0, math.nan, 3.0]]]), "median").isnan()


def test_torch_variance_std_topk():
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    flat = x.flatten(2)
    for correction in (0, 1, 5):
        for name, theirs in (("variance", torch.var), ("std", torch.std)):
            expected = theirs(flat, 2, correction=correction)
            torch.testing.assert_close(gs.pool(x, name, correction=correction), expected, rtol=1e-13, atol=0)
    for k in (1, 4, 35):
        torch.testing.assert_close(gs.pool(x, "topk", k=k), flat.topk(k, 2).values.mean(2), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, *(pytest.param(t, marks=pytest.mark.slow) for t in (torch.float64, torch.float16, torch.bfloat16))],
    ids=str,
)
def test_the_call_that_corrupts_memory_in_torch(dtype):
    # F.max_pool2d(torch.zeros(1,1,1,224,requires_grad=True),3,stride=(6,1),padding=1,dilation=2,ceil_mode=True)
    # .sum().backward() writes outside the gradient: all places of these windows are padding
    window = gs.Window(3, stride=(6, 1), padding=1, dilation=2, ceil_mode=True)
    x = torch.zeros(1, 1, 1, 224, dtype=dtype, requires_grad=True)
    answer = gs.pool(x, "max", window)
    assert answer.shape == F.max_pool2d(x.detach(), 3, (6, 1), 1, 2, True).shape
    assert (answer == -math.inf).all()
    answer.sum().backward()
    assert not x.grad.any()
    # with a second row, windows see it, and everything is torch's
    x = torch.randn(1, 2, 2, 224).to(dtype)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    answer, expected = gs.pool(mine, "max", window), F.max_pool2d(theirs, 3, (6, 1), 1, 2, True)
    assert torch.equal(answer, expected)
    answer.sum().backward()
    expected.sum().backward()
    assert torch.equal(mine.grad, theirs.grad)


def test_torch_lp_of_a_partial_window_differs():
    # torch takes the mean of the squares that are there and multiplies it by the size of a whole window
    x = torch.tensor([[[3.0, 4.0, 3.0]]])
    assert F.lp_pool1d(x, 2, 2, ceil_mode=True).tolist() == [[[5, pytest.approx(math.sqrt(18))]]]
    for name in ("lp", "l2"):
        assert gs.pool(x, name, gs.Window(2, ceil_mode=True)).tolist() == [[[5, 3]]]


# SciPy


def test_scipy_filters():
    x = np.random.default_rng(0).normal(size=(9, 12))
    tensor = torch.from_numpy(x)[None, None]
    outside = {
        "max": (scipy.ndimage.maximum_filter, -np.inf),
        "min": (scipy.ndimage.minimum_filter, np.inf),
        "sum": (lambda v, size, mode, cval: 15 * scipy.ndimage.uniform_filter(v, size, mode=mode, cval=cval), 0.0),
    }
    for name, (filtered, value) in outside.items():
        expected = filtered(x, size=(3, 5), mode="constant", cval=value)
        answer = gs.pool(tensor, name, gs.Window((3, 5), 1, "same"))[0, 0].numpy()
        np.testing.assert_allclose(answer, expected, rtol=1e-12, atol=1e-12)
    middle = gs.pool(tensor, "median", gs.Window((3, 5), 1))[0, 0].numpy()
    np.testing.assert_array_equal(middle, scipy.ndimage.median_filter(x, size=(3, 5))[1:-1, 2:-2])


def test_scipy_measures_of_labels():
    roll = np.random.default_rng(1)
    x, labels = roll.normal(size=(9, 12)), roll.integers(-1, 6, size=(9, 12))
    over = gs.Segments(torch.from_numpy(labels), 6)
    theirs = {
        "mean": scipy.ndimage.mean,
        "sum": scipy.ndimage.sum_labels,
        "max": scipy.ndimage.maximum,
        "min": scipy.ndimage.minimum,
        "variance": scipy.ndimage.variance,
        "std": scipy.ndimage.standard_deviation,
        "median": scipy.ndimage.median,
    }
    for name, measure in theirs.items():
        answer = gs.pool(torch.from_numpy(x)[None, None], name, over)[0, 0].numpy()
        np.testing.assert_allclose(answer, measure(x, labels, range(6)), rtol=1e-12, atol=1e-12)


def test_scipy_power_means_and_logsumexp():
    x = np.random.default_rng(2).uniform(0.1, 3, size=24)
    tensor = torch.from_numpy(x)[None, None]
    for p in (0.5, 1, 3, 20):
        assert gs.pool(tensor, "gem", p=p).item() == pytest.approx(scipy.stats.pmean(x, p), rel=1e-12)
        assert gs.pool(-tensor, "lp", p=p).item() == pytest.approx(np.linalg.norm(x, p), rel=1e-12)
    for r in (0.01, 1, 5, 500):
        expected = scipy.special.logsumexp(r * x, b=1 / x.size) / r
        assert gs.pool(tensor, "logsumexp", r=r).item() == pytest.approx(expected, rel=1e-12)


# by hand, on 1, 2, 3, 4


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 4), (1, 1, 2, 2), (1, 1, 1, 2, 2)])
def test_four_numbers_by_hand(shape, dtype):
    x, close = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=dtype).reshape(shape), {torch.float32: 1e-6}.get(dtype, 1e-12)
    e = [math.exp(v) for v in (1, 2, 3, 4)]
    by_hand = [
        ("mean", {}, 2.5),
        ("sum", {}, 10),
        ("max", {}, 4),
        ("min", {}, 1),
        ("l2", {}, math.sqrt(30)),
        ("lp", {"p": 1}, 10),
        ("lp", {"p": 3}, 100 ** (1 / 3)),
        ("lp", {"p": math.inf}, 4),
        ("gem", {}, 25 ** (1 / 3)),
        ("gem", {"p": 1}, 2.5),
        ("gem", {"p": 2}, math.sqrt(7.5)),
        ("gem", {"p": math.inf}, 4),
        ("softmax", {}, (e[0] + 2 * e[1] + 3 * e[2] + 4 * e[3]) / sum(e)),
        ("softmax", {"r": 0}, 2.5),
        ("softmax", {"r": math.inf}, 4),
        ("logsumexp", {"r": 1}, math.log(sum(e) / 4)),
        ("logsumexp", {"r": 0}, 2.5),
        ("logsumexp", {"r": math.inf}, 4),
        ("topk", {"k": 2}, 3.5),
        ("topk", {"k": 9}, 2.5),
        ("variance", {}, 1.25),
        ("variance", {"correction": 1}, 5 / 3),
        ("std", {}, math.sqrt(1.25)),
        ("median", {}, 2.5),
        ("quantile", {"q": 0.25}, 1.75),
        ("avgmax", {}, 3.25),
        ("attention", {"query": torch.ones(1)}, (e[0] + 2 * e[1] + 3 * e[2] + 4 * e[3]) / sum(e)),
    ]
    every = tuple(shape[2:])
    mask, labels = torch.ones(every).bool(), torch.zeros(every).long()
    for name, parameters, expected in by_hand:
        for over in (gs.Whole(), gs.Window(every), gs.Grid(1), gs.Pyramid((1,)), gs.Mask(mask), gs.Segments(labels)):
            answer = gs.pool(x, name, over, **parameters).item()
            assert answer == pytest.approx(expected, rel=close), (name, parameters, over)
    assert gs.pool(x, "catavgmax").tolist() == [[2.5, 4]]
    assert gs.pool(x, ("min", "sum")).tolist() == [[1, 10]]
