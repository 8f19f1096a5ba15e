"""No device is mixed with another. Without a GPU: tensors of shapes alone, on meta, or said to be on `cuda`."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import gapstone as gs
from gapstone.nets import build
from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY
from gapstone.regions import REGIONS
from tests.contract.truth import NEEDED, ONE_OF_EACH
from tests.marks import slow_but

EVERY = [*POOLS, *WHOLE_ONLY, *COMPOSITIONS, ("std", "max")]
SHAPE = 2, 4, 9, 8


def regions(device):
    """One of each kind, and what else a kind has; tensors on a device."""
    boxes = torch.ones(3, 5, device=device)
    return {
        "Whole": gs.Whole(),
        "Window": gs.Window(3, 2, 1, ceil_mode=True),
        "Grid": gs.Grid(3),
        "Pyramid": gs.Pyramid((1, 2)),
        "Mask": gs.Mask(torch.ones(9, 8, dtype=torch.bool, device=device)),
        "Weights": gs.Mask(torch.ones(2, 9, 8, device=device)),
        "Segments": gs.Segments(torch.ones(9, 8, dtype=torch.int64, device=device), 3),
        "Boxes": gs.Boxes(boxes, 2),
        "Sampled": gs.Boxes([boxes[:, 1:], boxes[:, 1:]], 2, sampling=2),
    }


def given(name, device):
    one = name if isinstance(name, str) else ""
    if one == "attention":
        return {"query": torch.ones(4, device=device)}
    return NEEDED.get(one, {})


def has(name, kind):
    """Whether there is this pool over this region."""
    if kind == "Weights":
        return isinstance(name, str) and name in POOLS and POOLS[name].weighted
    return not (kind == "Sampled" and name == "attention")


def test_every_region_is_here():
    assert {type(region) for region in regions("cpu").values()} == set(REGIONS)


@pytest.mark.parametrize(
    "kind", [kind for kind in regions("cpu") if kind not in ("Whole", "Window", "Grid", "Pyramid")]
)
@pytest.mark.parametrize("name", EVERY, ids=str)
@pytest.mark.parametrize(("mine", "other"), [("cpu", "meta"), ("meta", "cpu")])
def test_a_regions_tensor_on_another_device_is_refused(name, kind, mine, other):
    x = torch.ones(SHAPE, device=mine)
    asked = gs.pool if name in WHOLE_ONLY else (gs.pool, gs.partial)
    for call in asked if isinstance(asked, tuple) else (asked,):
        with pytest.raises(ValueError, match=rf"x is on {mine}, (mask|labels|boxes)\S* on {other}"):
            call(x, name, regions(other)[kind], **given(name, mine))


@pytest.mark.parametrize("region", [gs.Whole(), gs.Window(3), gs.Grid(2), gs.Pyramid((1, 2))], ids=str)
@pytest.mark.parametrize(("mine", "other"), [("cpu", "meta"), ("meta", "cpu")])
@pytest.mark.parametrize(
    ("name", "key"), [("gem", "p"), ("lp", "p"), ("logsumexp", "r"), ("softmax", "r"), ("attention", "query")]
)
def test_a_parameter_on_another_device_is_refused(region, mine, other, name, key):
    x = torch.ones(SHAPE, device=mine)
    for size in ((), (1,), (4,), (2, 4)):
        given = {key: torch.ones(size, device=other)}
        refused = pytest.raises(ValueError, match=f"x is on {mine}, {key} on {other}")
        with refused:
            gs.pool(x, name, region, **given)
        with refused:
            gs.Pool(name, region, **given)(x)
        if region == gs.Whole():
            with refused:
                gs.share(x, name, **given)


def test_states_of_two_devices_do_not_add_up():
    one, other = (gs.partial(torch.ones(SHAPE, device=device), "mean") for device in ("cpu", "meta"))
    with pytest.raises(ValueError, match="add up"):
        one + other


on_cuda = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="torch's CPU build has no tensors on cuda, not even fake ones"
)


@on_cuda
@pytest.mark.parametrize("kind", regions("cpu"))
@pytest.mark.parametrize("name", slow_but(EVERY, *ONE_OF_EACH), ids=str)
def test_every_pool_over_every_region_stays_on_its_device(name, kind):
    if not has(name, kind):
        pytest.skip(f"there is no {name} over {kind}")
    with FakeTensorMode():
        for laid in (torch.contiguous_format, torch.channels_last):
            x = torch.empty(SHAPE, device="cuda").to(memory_format=laid)
            out = gs.pool(x, name, regions("cuda")[kind], **given(name, "cuda"))
            assert out.device.type == "cuda"
        on_cpu = gs.pool(torch.empty(SHAPE), name, regions("cpu")[kind], **given(name, "cpu"))
        assert on_cpu.shape == out.shape


@on_cuda
@pytest.mark.parametrize(
    "spec", ["gap", "gmp", "gem:p=learned", "lse", "avgmax", "catavgmax", "nin", "fc:grid=3", "gap:8"]
)
def test_heads_stay_on_their_device(spec):
    with FakeTensorMode(), torch.device("cuda"):
        head = gs.Head(spec, channels=4, classes=3)
        x = torch.empty(SHAPE)
        assert x.device.type == head(x).device.type == "cuda"
        if head.additive:
            assert head.contributions(x).maps.device.type == "cuda"


@on_cuda
@pytest.mark.parametrize("name", ["resnet18:small", "googlenet", "vgg11_bn"])
def test_networks_stay_on_their_device(name):
    """Forward: torch's engine takes no gradient on a device that is not there."""
    with FakeTensorMode(), torch.device("cuda"):
        assert build(name)(torch.rand(2, 3, 64, 64)).device.type == "cuda"
