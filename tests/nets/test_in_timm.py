"""timm's create_model finds the networks that it lacks, and can do with them what it does with its own."""

import subprocess
import sys

import pytest
import torch

from gapstone.nets import build, register_timm

timm = pytest.importorskip("timm", reason="needs timm: pip install 'gapstone[zoo]'")

# name → gapstone's, a side that does, channels and strides of its levels
MODELS = {
    "gapstone_nin": ("nin", 32, [16, 32, 64], [1, 2, 4]),
    "gapstone_nin_paper": ("nin:paper", 32, [96, 192, 192], [1, 2, 4]),
    "gapstone_nin_imagenet": ("nin:imagenet", 96, [96, 256, 384, 1024], [4, 8, 16, 32]),
    "gapstone_googlenet": ("googlenet", 64, [64, 192, 480, 832, 1024], [2, 4, 8, 16, 32]),
    "gapstone_inception_resnet_v1": ("inception_resnet_v1", 107, [64, 192, 256, 896, 1792], [2, 4, 8, 16, 32]),
}


@pytest.mark.slow
def test_they_are_unknown_until_registered_and_twice_is_once() -> None:
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import timm, gapstone.nets as nets\n"
        "assert not timm.list_models('gapstone*')\n"
        "names = nets.register_timm()\n"
        "before = timm.models.model_entrypoint(names[0])\n"
        "assert nets.register_timm() == names\n"
        "assert timm.models.model_entrypoint(names[0]) is before\n"
        "assert timm.list_models('gapstone*') == sorted(names)\n"
        "print(*names)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == list(MODELS)


def test_gapstones_networks_import_neither_timm_nor_torchs_compiler() -> None:
    """Made as shapes, as whatever opens a model does; the compiler takes 2 s to import."""
    code = """
import sys
from gapstone.nets import NETS, build, dry_run
from gapstone.nets.on_meta import on_meta
for name in NETS:
    with on_meta():
        features = build(name)
    dry_run(features, 3, (224, 224))
print("timm" in sys.modules, "torch._dynamo" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", MODELS)
def test_what_timm_asks_of_a_model(name: str) -> None:
    register_timm()
    own, side, *_ = MODELS[name]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, in_chans=1, drop_rate=0.3).eval()
    assert (model.num_classes, model.in_chans, model.drop_rate) == (10, 1, 0.3)
    twin = build(own, in_channels=1).eval()
    twin.load_state_dict(model.features.state_dict())
    x = torch.randn(2, 1, side, side + 9)
    with torch.no_grad():
        maps = model.forward_features(x)
        assert torch.equal(maps, twin(x))
        assert model.num_features == model.head_hidden_size == maps.shape[1]
        vectors = model.forward_head(maps, pre_logits=True)
        torch.testing.assert_close(vectors, maps.mean((2, 3)))
        assert torch.equal(model(x), model.get_classifier()(vectors))
        assert torch.equal(model(x), model.forward_head(maps))


@pytest.mark.parametrize("name", MODELS)
def test_its_head_is_exchanged(name: str) -> None:
    register_timm()
    _, side, channels, _ = MODELS[name]
    model = timm.create_model(name, num_classes=0, global_pool="catavgmax").eval()
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert model(x).shape == (2, 2 * channels[-1])
        assert model.head_hidden_size == 2 * channels[-1]
        model.reset_classifier(5)
        assert model(x).shape == (2, 5)
        assert model.get_classifier().in_features == 2 * channels[-1]
        model.reset_classifier(4, "max")
        assert model.get_classifier().in_features == channels[-1]
        assert model(x).shape == (2, 4)
        model.reset_classifier(0, "")
        assert model(x).shape[:2] == (2, channels[-1])
        assert model(x).dim() == 4
    assert not model.global_pool.training


@pytest.mark.parametrize("name", MODELS)
def test_levels_of_detail(name: str) -> None:
    register_timm()
    _, side, channels, strides = MODELS[name]
    side = 2 * side
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True).eval()
        levels = model(torch.empty(1, 3, side, side))
        last = timm.create_model(name, features_only=True, out_indices=(-1,)).eval()(torch.empty(1, 3, side, side))
    assert model.feature_info.channels() == channels == [level.shape[1] for level in levels]
    assert model.feature_info.reduction() == strides
    for level, stride in zip(levels, strides, strict=True):
        assert abs(level.shape[2] - side / stride) <= 5  # unpadded convolutions eat the border
    assert last[0].shape == levels[-1].shape


def test_the_first_convolution_and_the_classifier_are_where_the_description_says() -> None:
    for name in register_timm():
        with torch.device("meta"):
            model = timm.create_model(name)
        facts = model.default_cfg
        assert model.num_classes == facts["num_classes"] == 1000
        assert model.get_submodule(facts["first_conv"]).in_channels == 3
        assert model.get_submodule(facts["classifier"]).out_features == 1000
        assert timm.data.resolve_model_data_config(model)["input_size"] == facts["input_size"]


def test_it_learns() -> None:
    register_timm()
    torch.manual_seed(0)
    model = timm.create_model("gapstone_nin", num_classes=3, in_chans=1)
    model(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_there_are_no_weights() -> None:
    register_timm()
    with pytest.raises(
        ValueError, match=r"create_model\('gapstone_googlenet', pretrained=True\): nobody has published"
    ):
        timm.create_model("gapstone_googlenet", pretrained=True)
    with pytest.raises(ValueError, match="gradient checkpointing is not supported"):
        timm.create_model("gapstone_nin").set_grad_checkpointing()


def test_ones_own_weights_are_loaded(tmp_path) -> None:
    from safetensors.torch import save_file

    register_timm()
    model = timm.create_model("gapstone_nin", num_classes=3)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    again = timm.create_model("gapstone_nin", num_classes=3, checkpoint_path=str(tmp_path / "w.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_as_a_network_of_timms_under_gapstones_heads() -> None:
    register_timm()
    features = build("timm:gapstone_googlenet", in_channels=1).eval()
    own = build("googlenet", in_channels=1)
    assert (features.channels, features.stride, features.smallest) == (own.channels, own.stride, own.smallest)
    assert features.last_stage == ("net.features.inception5a", "net.features.inception5b", "as_map")
    assert features(torch.randn(1, 1, 64, 64)).shape == (1, 1024, 2, 2)


def test_without_timm_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'gapstone\[zoo\]'"):
        register_timm()
