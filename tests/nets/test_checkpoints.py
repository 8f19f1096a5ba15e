"""Weights in the files of others, with torchvision's, timm's or facenet's names, under our heads give their logits."""

import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gapstone.heads import Head
from gapstone.models.backbone_weights import read_weights
from gapstone.models.classifier import Classifier
from gapstone.nets import NAMES, build
from gapstone.nets.checkpoints import FORMATS, Checkpoint, read_checkpoint
from tests.marks import slow_but
from tests.nets.filled import error, filled


def models():
    return pytest.importorskip("torchvision.models", reason="needs torchvision: pip install 'gapstone[zoo]'")


def small_vgg(name: str, classes: int = 7) -> nn.Module:
    """torchvision's, its two hidden layers 24 and 16 wide: with 4096 its classifier alone is 0.5 GB."""
    with torch.device("meta"):
        model = getattr(models(), name)(init_weights=False)
        sizes = (512 * 49, 24, 16, classes)
        for place, c_in, c_out in zip((0, 3, 6), sizes, sizes[1:], strict=False):
            model.classifier[place] = nn.Linear(c_in, c_out)
    return filled(model)


def of(name: str, **given: object) -> nn.Module:
    with torch.device("meta"):
        model = getattr(models(), name)(**given)
    return filled(model)


def saved(model: nn.Module, path: Path) -> Path:
    save_file({k: v.clone().contiguous() for k, v in model.state_dict().items()}, path)
    return path


def ours(name: str, found: Checkpoint) -> nn.Module:
    """As a caller puts them together: the labels, then the classifier, then the weights."""
    assert found.preprocessing is not None
    seen = replace(found.preprocessing, stored=found.preprocessing.size)
    model = Classifier(name, found.head, [f"class {k}" for k in range(found.classes)], seen)
    model.features.load_state_dict(found.features)
    model.head.load_state_dict(found.head_state)
    return model.eval()


@pytest.mark.parametrize("name", ["vgg11", "vgg16", "vgg13_bn", "resnet18", "resnet50", "googlenet"])
def test_torchvisions_logits(name: str, tmp_path: Path) -> None:
    if name.startswith("vgg"):
        theirs = small_vgg(name)
    elif name == "googlenet":
        theirs = of(name, num_classes=7, aux_logits=True, init_weights=False)
    else:
        theirs = of(name, num_classes=7)
    found = read_checkpoint(name, saved(theirs, tmp_path / "w.safetensors"))
    assert found.classes == 7
    model = ours(name, found)
    side = 224 if name.startswith("vgg") else 70
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 1e-2
        assert error(model(x), expected) < 1e-5


@pytest.mark.parametrize("name", ["vgg11", "resnet34", "inception_v4"])
def test_timms_logits(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs timm: pip install 'gapstone[zoo]'")
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=7)
        if name == "vgg11":  # its classifier alone is 0.5 GB
            theirs.pre_logits.fc1 = nn.Conv2d(512, 24, 7)
            theirs.pre_logits.fc2 = nn.Conv2d(24, 16, 1)
            theirs.head.fc = nn.Linear(16, 7)
    theirs = filled(theirs)
    found = read_checkpoint(name, saved(theirs, tmp_path / "w.safetensors"))
    model = ours(name, found)
    side = {"vgg11": 224, "inception_v4": 107}.get(name, 64)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert error(model(x), theirs(x)) < 1e-5


def test_facenets_two_linear_layers_are_one(tmp_path: Path) -> None:
    """Its forward, written out: logits(bn(last_linear(mean of the maps)))."""
    torch.manual_seed(0)
    features = build("inception_resnet_v1").eval()
    tail = nn.Sequential()
    tail.add_module("last_linear", nn.Linear(1792, 512, bias=False))
    tail.add_module("last_bn", nn.BatchNorm1d(512, eps=1e-3))
    tail.add_module("logits", nn.Linear(512, 11))
    tail.last_bn.running_mean.normal_()
    tail.last_bn.running_var.uniform_(0.01, 2)
    nn.init.normal_(tail.last_bn.weight)
    tail.eval()
    path = tmp_path / "w.safetensors"
    state = {**features.state_dict(), **tail.state_dict()}
    save_file(state, path)
    found = read_checkpoint("inception_resnet_v1", path)
    assert (found.head, found.classes, found.preprocessing.size) == ("gap:dropout=0.6", 11, (160, 160))
    x = torch.randn(2, 3, 90, 90)
    with torch.no_grad():
        expected = tail(features(x).mean((2, 3)))
        assert error(ours("inception_resnet_v1", found)(x), expected) < 1e-5
    # Without `logits` it makes embeddings: the network alone, and whatever the embedding's layers are.
    save_file({k: v for k, v in state.items() if not k.startswith("logits")}, path)
    alone = read_checkpoint("inception_resnet_v1", path)
    assert (alone.head_state, alone.classes) == (None, None)
    assert set(alone.features) == set(features.state_dict())
    save_file({k: v for k, v in state.items() if k != "last_bn.bias"}, path)
    with pytest.raises(ValueError, match=r"inception_resnet_v1's head: last_bn.bias missing"):
        read_checkpoint("inception_resnet_v1", path)


@pytest.mark.parametrize("name", FORMATS)
def test_every_reader_reads_a_network_without_its_head(name: str, tmp_path: Path) -> None:
    """And says a head that there is; in half precision; without num_batches_tracked, as torchvision's oldest files."""
    with torch.device("meta"):
        features = build(name, in_channels=5)
    features = filled(features)
    state = {k: v.half() for k, v in features.state_dict().items() if "num_batches" not in k}
    save_file(state, tmp_path / "w.safetensors")
    found = read_checkpoint(name, tmp_path / "w.safetensors")
    assert (found.head_state, found.classes, found.in_channels) == (None, None, 5)
    assert all(v.dtype == torch.float32 for k, v in found.features.items() if "num_batches" not in k)
    assert set(features.state_dict()) == set(found.features)
    with torch.device("meta"):
        head = Head(found.head, features.channels, 3, (7, 7))
    assert head.spec == found.head
    assert found.head.startswith("fc:4096,4096" if name.startswith("vgg") else "gap")


@pytest.mark.parametrize("name", FORMATS)
def test_the_heads_names_are_those_of_head(name: str) -> None:
    with torch.device("meta"):
        head = Head(FORMATS[name].head.format(8, 9), 64, 3, (7, 7))
    own = {f"{layer}.{kind}" for layer in FORMATS[name].linear.values() for kind in ("weight", "bias")}
    assert own == set(head.state_dict())


def test_googlenets_auxiliary_heads_are_left_out(tmp_path: Path) -> None:
    theirs = of("googlenet", num_classes=7, aux_logits=True, init_weights=False)
    found = read_checkpoint("googlenet", saved(theirs, tmp_path / "w.safetensors"))
    assert not [key for key in found.features if key.startswith("aux")]
    # torchvision's pretrained model turns what ImageNet's moments gave into halves by itself (transform_input)
    assert found.preprocessing.mean == found.preprocessing.std == (0.5, 0.5, 0.5)


@pytest.mark.slow
def test_another_networks_weights_are_named(tmp_path: Path) -> None:
    path = saved(of("resnet34", num_classes=7), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors: not the weights of resnet50: .*; it holds resnet34$"):
        read_checkpoint("resnet50", path)
    with pytest.raises(ValueError, match=r"not the weights of vgg16: .* of its tensors are missing.*holds resnet34"):
        read_checkpoint("vgg16", path)
    path = saved(of("googlenet", aux_logits=True, init_weights=False), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"not the weights of resnet18: .*holds googlenet$"):
        read_checkpoint("resnet18", path)
    path = saved(small_vgg("vgg11_bn"), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"not the weights of vgg11: .*holds vgg11_bn$"):
        read_checkpoint("vgg11", path)


def test_missing_and_foreign_tensors_are_named(tmp_path: Path) -> None:
    state = {k: v.clone() for k, v in of("resnet18", num_classes=7).state_dict().items()}
    path = tmp_path / "w.safetensors"
    save_file({k: v for k, v in state.items() if k != "layer4.1.bn2.weight"}, path)
    with pytest.raises(ValueError, match=r"1 of its tensors are missing, 0 belong elsewhere.*layer4\.1\.bn2\.weight"):
        read_checkpoint("resnet18", path)
    save_file(state | {"extra": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"0 of its tensors are missing, 1 belong elsewhere.*extra"):
        read_checkpoint("resnet18", path)
    save_file({k: v for k, v in state.items() if k != "fc.bias"}, path)
    with pytest.raises(ValueError, match=r"resnet18's head: there is fc.weight, but not fc.bias"):
        read_checkpoint("resnet18", path)
    save_file(state | {"fc.weight": torch.zeros(7, 511)}, path)
    with pytest.raises(ValueError, match=r"fc has a weight of \(7, 511\) .* take 512 numbers"):
        read_checkpoint("resnet18", path)


def test_what_is_no_file_of_weights_is_not_opened(tmp_path: Path) -> None:
    pickled = tmp_path / "resnet18.pth"
    pickled.write_bytes(pickle.dumps({"fc.weight": 1}))
    with pytest.raises(ValueError, match=r"or no file of torch\.save \(Unsupported operand 149\); copy it again\.$"):
        read_checkpoint("resnet18", pickled)
    torch.save({"fc.weight": torch.zeros(1)}, pickled)
    with pytest.raises(ValueError, match=r"not the weights of resnet18"):
        read_checkpoint("resnet18", pickled)
    pickled.write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"neither a safetensors file .* nor one of torch\.save; write one"):
        read_checkpoint("resnet18", pickled)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_checkpoint("resnet18", tmp_path / "nothing.safetensors")


def test_networks_nobody_published_weights_of(tmp_path: Path) -> None:
    assert set(FORMATS) == {name for name in NAMES if not name.startswith("nin") and not name.endswith(":small")}
    with pytest.raises(ValueError, match=r"nin:paper: no published weights of it are known; there are readers for vgg"):
        read_checkpoint("nin:paper", tmp_path / "w.safetensors")


SPOILED = {
    "int32": lambda t: (t * 1000).to(torch.int32),
    "int8": lambda t: (t * 100).to(torch.int8),
    "bool": lambda t: t > 0,
    "complex64": lambda t: t.to(torch.complex64),
    "float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "not finite": lambda t: torch.full_like(t, math.nan),
    "are not finite": lambda t: torch.cat([t.reshape(-1)[1:], torch.tensor([-math.inf])]).reshape(t.shape),
    "not finite$|are not": lambda t: torch.full(t.shape, 1e300, dtype=torch.float64),  # infinite as float32
}


@pytest.mark.parametrize("way", ["published", "ours", "a classifier's", "timm"])
@pytest.mark.parametrize("says", slow_but(SPOILED, "int8", "not finite", "are not finite"))
def test_weights_of_another_type_or_that_are_no_numbers(says: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    name = {"published": "resnet18", "ours": "nin", "a classifier's": "nin", "timm": "timm:test_resnet"}[way]
    if way == "timm":
        timm = pytest.importorskip("timm")
        state = timm.create_model("test_resnet").state_dict()
    else:
        state = build(name).state_dict()
        if way == "a classifier's":
            state = {f"features.{key}": value for key, value in state.items()} | {"head.x": torch.ones(1)}
    save_file(state, path)
    read_weights(path, name)
    key = [key for key, value in state.items() if value.is_floating_point() and value.ndim][-2]
    save_file(state | {key: SPOILED[says](state[key]).contiguous()}, path)
    with pytest.raises(ValueError, match=says) as caught:
        read_weights(path, name)
    assert key.removeprefix("features.") in str(caught.value)
    assert str(path) in str(caught.value)


def test_damaged_variances_and_counts(tmp_path: Path) -> None:
    path, state = tmp_path / "weights.safetensors", build("resnet18").state_dict()
    save_file(state | {"bn1.running_var": -state["bn1.running_var"]}, path)
    with pytest.raises(ValueError, match=r"64 of 64 variances in bn1\.running_var are below 0"):
        read_weights(path, "resnet18")
    save_file(state | {"bn1.num_batches_tracked": torch.tensor(1.5)}, path)
    with pytest.raises(ValueError, match=r"bn1\.num_batches_tracked is float32, and should be int64"):
        read_weights(path, "resnet18")


def test_files_beyond_the_machine_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(build("resnet18").state_dict(), path)
    monkeypatch.setattr("gapstone.nets.state_dicts.memory", lambda: 2 * path.stat().st_size)
    with pytest.raises(ValueError, match="three times that"):
        read_weights(path, "resnet18")
    path.write_bytes((9_000_000).to_bytes(8, "little") + b"{" + b" " * 9_000_000 + b"}")
    with pytest.raises(ValueError, match="at most 8,000,000"):
        read_weights(path, "resnet18")
