"""Whole networks: the same answers and the same state_dict after `accelerate`."""

import copy
import gc
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone.accelerating import functional

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")

SIZES = (64, 96, 224, 256)
FEW = {
    "torchvision/googlenet": 13,
    "torchvision/resnet18": 1,
    "torchvision/densenet121": 5,
    "timm/inception_v4": 18,
    "torchvision/inception_v3": 5,
    "torchvision/squeezenet1_1": 3,
    "timm/dm_nfnet_f0": 3,
    "timm/inception_resnet_v2": 5,
    "timm/resnest14d": 7,
}
"""Network: how many modules change at least."""
QUICK = {"torchvision/googlenet", "torchvision/resnet18", "torchvision/squeezenet1_1", "timm/resnest14d"}
"""Layers and functional calls, max and mean, windows that hang over; the others in `make test-slow`."""
FAMILIES = """
    bat_resnext26ts beit_base_patch16_224 botnet26t_256 cait_xxs24_224 coat_tiny coatnet_nano_rw_224 convit_tiny
    convmixer_768_32 convnext_atto crossvit_9_240 cspresnet50 darknet17 davit_tiny deit_tiny_patch16_224 densenet121
    dla34 dm_nfnet_f0 dpn48b eca_halonext26ts edgenext_xx_small efficientformer_l1 efficientnet_b0 focalnet_tiny_srf
    gernet_s ghostnet_050 haloregnetz_b hardcorenas_a hgnet_tiny hrnet_w18_small inception_resnet_v2 inception_v3
    inception_v4 lambda_resnet26t lcnet_035 legacy_seresnet18 levit_128s maxvit_pico_rw_256 mixer_s16_224 mixnet_s
    mnasnet_small mobilenetv2_035 mobilenetv3_small_050 mvitv2_tiny nasnetalarge nest_tiny_jx nf_resnet26
    pit_ti_224 pnasnet5large poolformer_s12 pvt_v2_b0 regnetx_002 repvgg_a0 res2net50_14w_8s resnest14d resnet10t
    resnetv2_50 rexnet_100 selecsls42 seresnext26d_32x4d skresnet18 swin_tiny_patch4_window7_224 tf_efficientnet_b0
    tiny_vit_5m_224 tresnet_m twins_svt_small vgg11 visformer_tiny vit_tiny_patch16_224 vovnet39a
    volo_d1_224 xception41 xcit_nano_12_p16_224
""".split()  # noqa: SIM905 a line for each of 72 otherwise


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    zoo, _, kind = name.partition("/")
    if zoo == "timm":
        model = timm.create_model(kind, pretrained=False)
    else:
        extra = {"init_weights": True} if kind in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(kind, weights=None, **extra)
    for parameter in model.parameters():
        if not parameter.any():  # a last layer or a branch that begins as nothing would hide what is before it
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


def some_input(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest image that the network takes, and its answer."""
    own = getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))[-1]
    errors = []
    for size in sorted({*SIZES, own}):
        x = torch.rand(2 if size < 100 else 1, 3, size, size, generator=torch.Generator().manual_seed(1))
        try:
            with torch.inference_mode():
                y = model(x)
        except (AssertionError, RuntimeError, ValueError, IndexError) as error:
            errors.append(f"{size}: {error}")
            continue
        if bool(y.isfinite().all()):
            return x, y
    raise AssertionError(f"no size works: {errors}")


def compared(model: nn.Module, inplace: bool) -> tuple[int, int, float]:
    """Modules changed and left, and the largest difference over the largest answer."""
    x, expected = some_input(model)
    keys = list(model.state_dict())
    fast = gs.accelerate(model, inplace=inplace)
    with torch.inference_mode():
        got = fast(x)
    assert list(fast.state_dict()) == keys
    assert not fast.training
    report = gs.accelerated(fast)
    return len(report.changed), len(report.left), float((got - expected).abs().max() / expected.abs().max())


def all_names() -> Iterator[str]:
    for kind in torchvision.models.list_models(module=torchvision.models):
        yield f"torchvision/{kind}"
    for kind in FAMILIES:
        yield f"timm/{kind}"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in FEW])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_networks_answer_as_before(name, monkeypatch):
    served = []
    runner_of = functional.runner_of

    def counted(name, x, place):
        run = runner_of(name, x, place)
        served.extend([name] if run is not None else [])
        return run

    monkeypatch.setattr(functional, "runner_of", counted)
    changed, _, difference = compared(built(name), inplace=False)
    assert changed >= FEW[name]
    assert served
    assert difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", list(all_names()))
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_every_network_answers_as_before(name):
    *_, difference = compared(built(name), inplace=True)
    gc.collect()
    assert difference < 1e-4


@pytest.mark.kernels
def test_a_training_step_is_the_same():
    model = built("torchvision/squeezenet1_1").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plain, fast = copy.deepcopy(model), gs.accelerate(model)
    x = torch.rand(2, 3, 64, 64)
    for network in (plain, fast):
        network(x).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5 * float(a.grad.abs().max())), name
