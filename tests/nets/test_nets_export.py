"""torch.export with dynamic batch, height and width, tried at another size; torchvision's GoogLeNet cannot."""

import itertools

import pytest
import torch

from gapstone.nets import NAMES, build
from gapstone.pooling import Pool
from gapstone.regions import Window

QUICK = ("nin", "resnet18")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_exports_with_any_size(name: str) -> None:
    torch.manual_seed(0)
    features = build(name, in_channels=1).eval()
    side = features.smallest + 2 * features.stride  # a map of one cell would be taken for a constant
    dynamic = {0: torch.export.Dim("n", max=1024), 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(features, (torch.randn(2, 1, side, side + 7),), dynamic_shapes=(dynamic,))
    x = torch.randn(3, 1, side + features.stride + 5, side + 3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), features(x), rtol=1e-5, atol=1e-5)


def test_exports_for_training_too() -> None:
    torch.manual_seed(0)
    features = build("nin", in_channels=1)
    dynamic = {0: torch.export.Dim("n", max=1024), 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(features, (torch.randn(2, 1, 24, 28),), dynamic_shapes=(dynamic,))
    x = torch.randn(3, 1, 40, 33)
    torch.testing.assert_close(program.module()(x), features(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", range(1, 6))
def test_windows_that_hang_over_are_as_many_as_those_that_start_on_the_map(size: int) -> None:
    """Counted one by one: a window starts on the map or on the padding before it."""
    tried = 0
    for stride, before, after, step, length in itertools.product(range(1, 6), range(4), range(4), (1, 2), range(1, 14)):
        span = (size - 1) * step + 1
        if max(before, after) >= span or length + before + after - span <= -stride:
            continue
        window = Window(size, stride, ((before, after),), step, ceil_mode=True)
        starts = range(0, length + before, stride)
        # One window more than the first that reaches the end of the padding is none.
        enough = next((i for i, start in enumerate(starts) if start + span >= length + before + after), len(starts) - 1)
        assert window.place((1, 1, length)).axes[0].cells == enough + 1, window
        tried += 1
    assert tried > 100


def test_no_minimum_of_sizes_where_none_is_needed() -> None:
    """Each would be nested in the next pool's: torch.export of GoogLeNet took 150 s with them."""
    layer = Pool("max", over=Window(3, stride=2, ceil_mode=True)).eval()
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(layer, (torch.randn(1, 1, 20, 24),), dynamic_shapes=(dynamic,))
    output = next(node for node in program.graph.nodes if node.op == "output").args[0][0]
    sizes = [str(size) for size in output.meta["val"].shape[2:]]
    assert not [size for size in sizes if "Min" in size], sizes
