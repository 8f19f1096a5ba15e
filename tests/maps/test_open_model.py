"""A model by its name: what it answers is what its own code answers, and what is wrong is said."""

from pathlib import Path

import numpy as np
import pytest
import torch

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.open_model import open_model
from gapstone.models.backbone_weights import read_weights


@pytest.fixture
def saved(tmp_path) -> Path:
    torch.manual_seed(0)
    preprocessing = Preprocessing(3, (32, 32), (36, 36), (0.5,) * 3, (0.25,) * 3)
    return gs.Classifier("nin", "gap", ("cat", "dog", "owl"), preprocessing).save(tmp_path / "m.safetensors")


def test_a_gapstone_file(saved):
    opened = open_model(str(saved))
    pictures = list(np.random.default_rng(0).integers(0, 255, (2, 50, 72, 3), np.uint8))
    found = opened.look(pictures)
    assert [len(evidence) for evidence in found] == [3, 3]
    assert sum(e.probability for e in found[0]) == pytest.approx(1)
    assert found[0][0].probability >= found[0][1].probability >= found[0][2].probability
    expected = gs.load(saved).predict(pictures)
    for evidence in found[1]:
        assert evidence.probability == pytest.approx(float(expected[1, evidence.index]), rel=1e-5)
        assert evidence.map.sum() + evidence.bias == pytest.approx(evidence.logit, abs=1e-5)
        assert evidence.size == (50, 72)
        # 32 of 36 px of a square of 50, in the middle of the picture
        scale = 50 / 36
        top, left = 2 * scale, 11 + 2 * scale
        seen = ((top, top + 32 * scale), (left, left + 32 * scale))
        assert np.allclose(evidence.placement.seen, seen)
        assert evidence.placement.stride == pytest.approx((4 * scale, 4 * scale))
        assert evidence.placement.start == pytest.approx((top + scale / 2 - 0.5, left + scale / 2 - 0.5))
    assert [e.label for e in opened.look(pictures[:1], classes=[2, 0])[0]] == ["owl", "cat"]
    assert len(opened.look(pictures, top_k=2)[1]) == 2


def test_pictures_of_different_sizes_and_channels(saved):
    opened = open_model(str(saved))
    found = opened.look([np.zeros((40, 90, 3), np.uint8), np.zeros((64, 33, 1), np.uint8)], top_k=1)
    assert [e[0].size for e in found] == [(40, 90), (64, 33)]


def test_timm_with_weights_from_a_file(tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    opened = open_model("timm:resnet10t", tmp_path / "w.safetensors")
    assert opened.labels == tuple(f"class {k}" for k in range(7))
    assert opened.preprocessing.size == tuple(model.default_cfg["input_size"][1:])
    picture = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    evidence = opened.look([picture])[0]
    # the same as timm's own preprocessing of the same picture
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        expected = model(transform(Image.fromarray(picture))[None]).softmax(1)[0]
    for e in evidence:
        assert e.probability == pytest.approx(float(expected[e.index]), abs=0.01)
        assert e.completeness < 1e-4
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "imagenet.safetensors")
    labels = open_model("timm:resnet10t", tmp_path / "imagenet.safetensors").labels
    assert len(labels) == len(set(labels)) == 1000
    assert labels[281].startswith("tabby")


def test_errors(tmp_path, saved):
    with pytest.raises(ValueError, match="there is no such file"):
        open_model(str(tmp_path / "none.safetensors"))
    with pytest.raises(ValueError, match="brings its own"):
        open_model(str(saved), saved)
    with pytest.raises(ValueError, match="a network without weights"):
        open_model("resnet18")
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="did you mean"):
        open_model("timm:resnet118")
    with pytest.raises(ValueError, match=r"not the weights of timm:resnet10t: there is no fc\.weight"):
        open_model("timm:resnet10t", saved)
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="neither a safetensors file"):
        open_model("timm:resnet10t", tmp_path / "bad.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_model("timm:resnet10t", tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("name", "theirs"), [("resnet18", "resnet18"), pytest.param("googlenet", "googlenet", marks=pytest.mark.slow)]
)
def test_a_network_of_our_own_with_published_weights(name, theirs, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    more = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(theirs, num_classes=5, **more).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    opened = open_model(name, tmp_path / "w.safetensors")
    assert opened.labels == ("class 0", "class 1", "class 2", "class 3", "class 4")
    assert opened.preprocessing.size == (224, 224)
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(opened.model(images), model(images), atol=1e-5)
    again = gs.load(opened.model.save(tmp_path / "ours.safetensors"))
    assert again.backbone == name
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=f"not the weights of {name}: .* missing"):
        open_model(name, tmp_path / "other.safetensors")
    save_file({k: v for k, v in model.state_dict().items() if not k.startswith(("fc", "classifier"))}, tmp_path / "f")
    with pytest.raises(ValueError, match="without its head"):
        open_model(name, tmp_path / "f")


def test_weights_of_another_shape_are_told(tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    state = timm.create_model("resnet10t", num_classes=7).state_dict()
    state["conv1.0.weight"] = state["conv1.0.weight"][..., :2].contiguous()
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"1 have another shape \(conv1.0.weight"):
        open_model("timm:resnet10t", tmp_path / "w.safetensors")


def test_predict_takes_every_model_that_opens(tmp_path, capsys):
    timm = pytest.importorskip("timm")
    import json

    from PIL import Image
    from safetensors.torch import save_file

    from gapstone.explaining.predict_files import predict_files

    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    pixels = np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    opened = open_model("timm:resnet10t", tmp_path / "w.safetensors")
    for native in (False, True):
        assert predict_files(
            "timm:resnet10t",
            [str(tmp_path / "a.png")],
            True,
            3,
            "cpu",
            native=native,
            weights=tmp_path / "w.safetensors",
        )
        (row,) = json.loads(capsys.readouterr().out)["images"]
        evidence = {e.label: e.probability for e in opened.look([pixels], native=native)[0]}
        assert row["probabilities"] == pytest.approx(evidence, rel=1e-4)


@pytest.mark.parametrize("wrapped", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod.module."])
def test_weights_saved_through_what_the_network_was_wrapped_in(wrapped, tmp_path):
    """DataParallel, torch.compile, Lightning, and several at once: one network, whatever its names begin with."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet18(num_classes=3)
    path = tmp_path / "w.safetensors"
    save_file({wrapped + key: tensor for key, tensor in network.state_dict().items()}, path)
    model = open_model("resnet18", path).model
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), network.eval()(x))
    assert read_weights(path, "resnet18").state["conv1.weight"].shape == (64, 3, 7, 7)
    trunk = {wrapped + key: tensor for key, tensor in model.features.state_dict().items()}
    save_file(trunk, path)
    assert read_weights(path, "resnet18").state.keys() == model.features.state_dict().keys()


@pytest.mark.parametrize("wrapped", ["", "module."])
def test_timms_weights_for_grey_images(wrapped, tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("resnet10t", in_chans=1, num_classes=3).eval()
    path = tmp_path / "grey.safetensors"
    save_file({wrapped + key: tensor for key, tensor in network.state_dict().items()}, path)
    opened = open_model("timm:resnet10t", path)
    assert opened.preprocessing.channels == 1
    assert opened.preprocessing.mean == (pytest.approx((0.485 + 0.456 + 0.406) / 3),)
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 1), np.uint8)
    [evidence] = opened.look([picture], top_k=3)
    assert len(evidence) == 3
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(opened.model(x), network(x))
    weights = read_weights(path, "timm:resnet10t")
    assert weights.channels == 1
    assert weights.moments == (opened.preprocessing.mean, opened.preprocessing.std)
    save_file(timm.create_model("resnet10t", in_chans=5, num_classes=3).state_dict(), path)
    with pytest.raises(ValueError, match=r"images of 5 channels .* 3 \(colour\) or 1 \(grey\)"):
        open_model("timm:resnet10t", path)
