"""timm's networks: one of each kind of output, on shapes alone or tiny images."""

import sys
from pathlib import Path

import pytest
import torch

from gapstone.nets import build, map_size
from gapstone.nets.timm_survey import survey
from tests.marks import of_timm

timm = pytest.importorskip("timm")

# name → channels, stride, fixed size
FAMILIES: dict[str, tuple[int, int, tuple[int, int] | None]] = {
    "resnet18": (512, 32, None),
    "convnext_atto": (320, 32, None),
    "mobilenetv3_small_050": (288, 32, None),  # its conv_head stands after the pool
    "efficientnet_b0": (1280, 32, None),
    "densenet121": (1024, 32, None),
    "regnety_002": (368, 32, None),
    "vit_tiny_patch16_224": (192, 16, None),  # tokens, whose position embeddings are resampled
    "test_vit_relpos": (96, 16, (160, 160)),  # tokens, whose positions are not
    "swin_tiny_patch4_window7_224": (768, 32, (224, 224)),  # channels last
    "mambaout_femto": (288, 32, None),  # channels last, any size
    "inception_v3": (2048, 32, None),  # unpadded: 299 px are 8 cells
    "dla34": (512, 32, None),  # takes multiples of 32 alone
}


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_of_each_kind_without_the_head(name: str) -> None:
    of_timm(name)
    with torch.device("meta"):
        features = build(f"timm:{name}", in_channels=4)
    assert (features.channels, features.stride, features.fixed) == FAMILIES[name]
    h, w = features.fixed or (320, 416)
    maps = features(torch.empty(2, 4, h, w, device="meta"))
    assert maps.ndim == 4
    assert maps.shape[:2] == (2, features.channels)
    maps.backward(torch.ones_like(maps))
    # Every parameter left has a part in the maps: no head is carried along.
    assert [n for n, p in features.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])  # made for tests
def test_runs_and_learns_on_small_images(name: str) -> None:
    features = build(f"timm:{name}", in_channels=1)
    x = torch.randn(2, 1, 64, 96)
    maps = features(x)
    assert maps.shape == (2, features.channels, 2, 3)
    maps.square().mean().backward()
    assert all(p.grad is not None for p in features.parameters())
    assert map_size(features, 1, (64, 96)) == (2, 3)


def test_resnet18_is_ours() -> None:
    theirs, ours = build("timm:resnet18").eval(), build("resnet18").eval()
    ours.load_state_dict({k.removeprefix("net."): v for k, v in theirs.state_dict().items()}, strict=True)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_tokens_lie_on_their_grid() -> None:
    """A ViT without its blocks: each cell depends on its own patch alone, so a changed patch shows where it lies."""
    features = build("timm:test_vit").eval()
    features.get_submodule("net").blocks = torch.nn.Identity()
    x = torch.zeros(1, 3, 160, 160)
    changed = x.clone()
    changed[..., 2 * 16 : 3 * 16, 5 * 16 : 6 * 16] = 1
    with torch.no_grad():
        moved = (features(changed) - features(x)).abs().sum(1)[0] > 1e-6
    assert moved.nonzero().tolist() == [[2, 5]]


def test_smallest_works_and_one_less_does_not() -> None:
    with torch.device("meta"):
        features = build("timm:convnext_atto")
    assert features.smallest == 32
    assert min(map_size(features, 3, (features.smallest,) * 2)) == 1
    with pytest.raises(ValueError, match="needs at least"):
        map_size(features, 3, (features.smallest - 1,) * 2)


def test_networks_of_one_size_say_so() -> None:
    with torch.device("meta"):
        features = build("timm:swin_tiny_patch4_window7_224")
    with pytest.raises(ValueError, match="takes only 224×224 px and got 64×224"):
        features(torch.empty(1, 3, 64, 224))


@pytest.mark.parametrize(("name", "came"), [("crossvit_9_240", "came a list"), ("pit_ti_224", "a single cell")])
def test_no_map_is_a_clear_error(name: str, came: str) -> None:
    with pytest.raises(ValueError, match=rf"timm:{name} makes no feature map.*{came}"):
        build(f"timm:{name}")


def test_smallest_where_only_whole_strides_work() -> None:
    assert survey("dla34", 4).smallest <= 32


@pytest.mark.parametrize(
    "name", ["resnet81", "hf-hub:timm/resnet18", "local-dir:/tmp/x", "hf_hub:a/b", "", "../resnet18"]
)
def test_unknown_names_never_reach_the_network(name: str) -> None:
    with pytest.raises(ValueError, match="has no model"):
        build(f"timm:{name}", pretrained=True)


def test_close_names_are_suggested() -> None:
    with pytest.raises(ValueError, match=r"did you mean .*timm:resnet18"):
        build("timm:resnet1")


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model

    def unplugged(name: str, pretrained: bool = False, **arguments: object) -> object:
        if pretrained:
            raise RuntimeError("Max retries exceeded")
        return real(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", unplugged)
    monkeypatch.setattr("gapstone.nets.hub._is_here", lambda _: True)
    with pytest.raises(OSError, match=r"timm:resnet18.*weights could not be had.*Max retries.*--weights FILE"):
        build("timm:resnet18", pretrained=True)


def test_weights_out_of_reach_are_told_at_once_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's client alone tried for two minutes, trial by trial."""
    from gapstone.comparing.compare_request import CompareRequest
    from gapstone.comparing.run_comparison import compare
    from gapstone.training.training_data import TrainOptions

    def unplugged(request: object, timeout: float) -> object:
        assert timeout < 10
        raise OSError("Network is unreachable")

    monkeypatch.setattr("gapstone.nets.hub._is_here", lambda _: False)
    monkeypatch.setattr("urllib.request.urlopen", unplugged)
    said = (
        r"timm:resnet18: its pretrained weights are not on this machine, and huggingface.co cannot be reached \(Network"
    )
    with pytest.raises(OSError, match=said):
        build("timm:resnet18", pretrained=True)
    # before the images are looked at: DATA is not there
    with pytest.raises(OSError, match=said):
        compare(CompareRequest(TrainOptions("nowhere", "timm:resnet18", pretrained=True), ("gap",)), tmp_path / "out")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set"):
        build("timm:resnet18", pretrained=True)
    with pytest.raises(ValueError, match="--pretrained: resnet18 starts from random weights"):
        compare(CompareRequest(TrainOptions("nowhere", "resnet18", pretrained=True), ("gap",)), tmp_path / "out")


def test_without_timm_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    survey.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'gapstone\[zoo\]'"):
        build("timm:resnet18")
    build("nin")


def test_it_can_be_built_in_inference_mode():
    survey.cache_clear()
    with torch.inference_mode():
        features = build("timm:test_resnet")
        assert features(torch.rand(1, 3, 64, 64)).shape[1] == features.channels
