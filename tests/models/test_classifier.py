"""One file holds the whole classifier: what was saved comes back to the bit, and nothing else loads."""

import json
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gapstone.images.load import ImageError
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier, ModelFileError, load
from gapstone.models.model_file import read

LABELS = ("cat", "dog", "fish")


def preprocessing(side: int = 16, channels: int = 1) -> Preprocessing:
    return Preprocessing(
        channels=channels,
        size=(side, side),
        stored=(side + 4, side + 4),
        mean=(0.4,) * channels,
        std=(0.3,) * channels,
    )


def make(backbone: str = "nin", head: str = "gap", side: int = 16, channels: int = 1) -> Classifier:
    torch.manual_seed(0)
    return Classifier(backbone, head, LABELS, preprocessing(side, channels))


def weighted(model: Classifier) -> Classifier:
    """Running statistics that differ from the initial ones, as after training."""
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make().save(tmp_path_factory.mktemp("models") / "model.safetensors")


# --- what was saved comes back


@pytest.mark.parametrize(
    ("backbone", "head", "side", "channels"),
    [
        ("nin", "gap", 16, 1),
        ("nin", "gmp", 16, 3),
        ("nin", "fc:32:dropout=0.5", 16, 3),
        ("nin", "gem:p=learned", 17, 3),
        ("nin", "nin", 28, 1),
        ("nin:paper", "catavgmax:norm=batch", 16, 3),
        ("resnet18:small", "lse:r=learned", 16, 3),
        ("nin", "fc:16:grid=2", 32, 3),
        ("timm:test_coatnet", "avgmax", 160, 3),  # has buffers that are not saved
    ],
)
def test_round_trip_to_the_bit(backbone: str, head: str, side: int, channels: int, tmp_path: Path) -> None:
    if backbone.startswith("timm:"):
        timm = pytest.importorskip("timm")
        if not timm.is_model(backbone.removeprefix("timm:")):
            pytest.skip(f"timm {timm.__version__} has no {backbone}")
    model = weighted(make(backbone, head, side, channels)).eval()
    copy = load(model.save(tmp_path / "m.safetensors"))
    x = torch.randn(2, channels, side, side)
    with torch.no_grad():
        assert torch.equal(model(x), copy(x))
    assert not copy.training
    assert (copy.backbone, copy.labels, copy.preprocessing) == (backbone, LABELS, model.preprocessing)
    assert copy.head.spec == model.head.spec
    assert all(p.requires_grad for p in copy.parameters())


def test_logits_are_the_head_of_the_features() -> None:
    model = make().eval()
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(model(x), model.head(model.features(x)))
    assert model(x).shape == (2, 3)


def test_a_flattening_head_gets_the_size_of_the_maps() -> None:
    assert make(head="fc", side=28).head.size == (7, 7)


def test_labels_in_any_script_survive(tmp_path: Path) -> None:
    labels = ("猫", "Katze\n\t\"'", "кот 🐈", "بنت", "e\u0301", "\u00e9", "caf\udce9", " ", "gapstone", "a" * 300)
    model = Classifier("nin", "gap", labels, preprocessing())
    assert load(model.save(tmp_path / "ключ 🗝.safetensors")).labels == labels


def test_same_model_same_bytes(tmp_path: Path) -> None:
    model = make()
    first, second = model.save(tmp_path / "a.safetensors"), load(tmp_path / "a.safetensors").save(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() == make().to(memory_format=torch.channels_last).save(tmp_path / "c").read_bytes()


def test_loading_leaves_the_callers_random_numbers_alone(saved: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(saved)
    assert torch.equal(torch.rand(3), expected)


def test_other_tools_can_read_the_weights(saved: Path) -> None:
    weights = safetensors.torch.load_file(saved)
    assert weights.keys() == make().state_dict().keys()


# --- saving


def test_saving_never_leaves_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make().save(tmp_path / "m.safetensors")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    other = make(head="gmp")
    with pytest.raises(OSError, match="No space left"):
        other.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert path.read_bytes() == before


def test_saving_over_a_model_replaces_it(tmp_path: Path) -> None:
    path = make().save(tmp_path / "m.safetensors")
    assert make(head="gmp").save(path) == path
    assert load(path).head.spec == "gmp"


def test_saving_where_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere.*create it first"):
        make().save(tmp_path / "nowhere" / "m.safetensors")
    with pytest.raises(IsADirectoryError, match="add a file name"):
        make().save(tmp_path)


def test_saving_refuses_what_would_not_load(tmp_path: Path) -> None:
    diverged = make()
    with torch.no_grad():
        next(diverged.parameters())[0, 0, 0, 0] = float("nan")
    half = make().half()
    changed = make()
    changed.features = make("nin:paper").features
    for model, message in (
        (diverged, "1 of 144 numbers in features.block1.0.weight are not finite"),
        (half, r"is F?.*float16\[16, 1, 3, 3\], not F32\[16, 1, 3, 3\]"),
        (changed, "does not belong|is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


# --- files that are no model


def bytes_of(about: Any, weights: dict[str, torch.Tensor] | None = None, text: str | None = None) -> bytes:
    weights = make().state_dict() if weights is None else weights
    return safetensors.torch.save(weights, {"gapstone": json.dumps(about) if text is None else text})


def description(**changes: Any) -> dict[str, Any]:
    about = {
        "schema": 1,
        "gapstone": "0.1.0",
        "backbone": "nin",
        "head": "gap",
        "labels": list(LABELS),
        "preprocessing": preprocessing().to_json(),
    }
    return {k: v for k, v in {**about, **changes}.items() if v is not ...}


def refused(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < 1500
    return message


def test_description_is_what_save_writes(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(bytes_of(description()))
    load(tmp_path / "m")


def test_truncated_anywhere(tmp_path: Path, saved: Path) -> None:
    data = saved.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    offsets = {*range(80), *range(80, header + 40, 37), *range(header, len(data), 4001), len(data) - 1, header}
    for offset in sorted(offsets):
        message = refused(tmp_path, data[:offset])
        assert "cut" in message
        assert "again" in message
    assert "follow its end" in refused(tmp_path, data + b"\0")


NOT_OURS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "zip": (b"PK\x03\x04" + bytes(100), r"torch.save writes.*never unpickles"),
    "old pickle": (b"\x80\x02}q\x00." + bytes(100), "pickle"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "web page": (b"<!DOCTYPE html><html></html>", "web page"),
    "text": (b"hello, this is a text file", "no safetensors file"),
    "zeros": (bytes(1000), "no safetensors file"),
    "huge header": (struct.pack("<Q", 2**63) + b"{" + bytes(100), "no safetensors file"),
    "header beyond": (struct.pack("<Q", 10**7) + b"{" + bytes(100), "cut short"),
    "bad json": (struct.pack("<Q", 6) + b"{oops}", "header is damaged"),
    "not utf-8": (struct.pack("<Q", 5) + b'{"\xff"}', "header is damaged"),
    "deep": (struct.pack("<Q", 500_005) + b'{"a":' + b"[" * 500_000, "header is damaged"),
    "long number": (struct.pack("<Q", 10_007) + b'{"a":1' + b"1" * 10_000 + b"}", "header is damaged"),
}


@pytest.mark.parametrize("which", NOT_OURS)
def test_not_a_safetensors_file(which: str, tmp_path: Path) -> None:
    data, message = NOT_OURS[which]
    assert re.search(message, refused(tmp_path, data))


def test_a_torch_file_is_recognised_and_not_run(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save(make().state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
        assert "never unpickles" in refused(tmp_path, (tmp_path / "m.pt").read_bytes())


@pytest.mark.parametrize(
    "entry",
    [
        None,
        3,
        {},
        {"dtype": "F32"},
        {"dtype": 1, "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "11", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**30]},
    ],
)
def test_a_damaged_header(entry: object, tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"gapstone": "{}"}, "w": entry}).encode()
    message = refused(tmp_path, struct.pack("<Q", len(header)) + header + bytes(4))
    assert "damaged at tensor 'w'" in message or "cut short" in message


def test_tensors_that_overlap_are_refused(tmp_path: Path, saved: Path) -> None:
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = [name for name in header if name.endswith(".weight")]
    header[names[0]]["data_offsets"], header[names[1]]["data_offsets"] = (
        header[names[1]]["data_offsets"],
        header[names[0]]["data_offsets"],
    )
    text = json.dumps(header).encode()
    assert "damaged" in refused(tmp_path, struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_foreign_files(tmp_path: Path) -> None:
    assert "not of gapstone's" in refused(tmp_path, safetensors.torch.save(make().state_dict()))
    assert "not of gapstone's" in refused(tmp_path, safetensors.torch.save(make().state_dict(), {"format": "pt"}))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="there is no such file"):
        load(tmp_path / "missing.safetensors")
    with pytest.raises(ModelFileError, match="a folder"):
        load(tmp_path)


# --- descriptions that cannot be

DESCRIPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"schema": 3}, r"schema is int '3'.*reads schema 1 and 2: update it with pip install -U gapstone"),
    ({"schema": 0}, "save the model again with this version"),
    ({"schema": ...}, "schema is missing"),
    ({"schema": True}, "schema is bool"),
    ({"schema": "1"}, "schema is str"),
    ({"backbone": ...}, "backbone is missing"),
    ({"backbone": 3}, "backbone is int '3'"),
    ({"backbone": "resnet81"}, "there is no network .* did you mean resnet18"),
    ({"backbone": "timm:hf-hub:someone/something"}, "has no model"),
    ({"backbone": "resnet18"}, r"conv1.weight is missing"),
    ({"backbone": "x" * 10_000}, "backbone is str"),
    ({"head": ...}, "head is missing"),
    ({"head": "gapp"}, "Did you mean 'gap'"),
    ({"head": "fc:1000000000000"}, "hidden width"),
    ({"head": "fc:999999,999999"}, r"999999, 1024\]|is missing"),
    ({"head": "fc:" + ",".join(["1"] * 100_000)}, "head is str"),
    ({"labels": ...}, "labels are missing"),
    ({"labels": "cat"}, "labels are str"),
    ({"labels": {"cat": 1}}, "labels are dict"),
    ({"labels": []}, "at least two labels and got 0"),
    ({"labels": ["cat", "cat", "dog"]}, "label 'cat' is given twice"),
    ({"labels": ["cat", "dog", 3]}, "labels must be names"),
    ({"labels": ["cat", "dog"]}, r"is F32\[3, 64\], not F32\[2, 64\]"),
    ({"labels": [str(i) for i in range(200_000)]}, r"not F32\[200000, 64\]"),
    ({"preprocessing": ...}, "preprocessing is missing"),
    ({"preprocessing": [1]}, "preprocessing is list"),
    ({"preprocessing": {}}, "description cannot be: preprocessing: expected the fields channels"),
]


@pytest.mark.parametrize(("changes", "message"), DESCRIPTIONS)
def test_a_description_that_cannot_be(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert re.search(message, refused(tmp_path, bytes_of(description(**changes))))


PREPROCESSINGS: list[dict[str, Any]] = [
    {"channels": 0},
    {"channels": -1},
    {"channels": "1"},
    {"channels": 1.5},
    {"channels": True},
    {"channels": 10**9},
    {"channels": None},
    {"size": [0, 16]},
    {"size": [16]},
    {"size": [16, 16, 16]},
    {"size": 16},
    {"size": "16"},
    {"size": [10**9, 10**9]},
    {"size": [16, "16"]},
    {"stored": [10**12, 20]},
    {"mean": []},
    {"mean": [0.1, 0.2]},
    {"mean": ["0.1"]},
    {"mean": 0.1},
    {"mean": [float("nan")]},
    {"std": [0.0]},
    {"std": [-1.0]},
    {"std": [float("inf")]},
    {"std": None},
]


@pytest.mark.parametrize("changes", PREPROCESSINGS, ids=str)
def test_a_preprocessing_that_cannot_be(changes: dict[str, Any], tmp_path: Path) -> None:
    about = description(preprocessing={**preprocessing().to_json(), **changes})
    assert "preprocessing" in refused(tmp_path, bytes_of(about))


@pytest.mark.parametrize("field", sorted(preprocessing().to_json()))
def test_a_preprocessing_without_a_field(field: str, tmp_path: Path) -> None:
    about = description(preprocessing={k: v for k, v in preprocessing().to_json().items() if k != field})
    assert field in refused(tmp_path, bytes_of(about))


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "not an object"), ("[" * 100_000, "not JSON")])
def test_a_description_that_is_not_json(text: str, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, bytes_of(None, text=text))


def test_a_backbone_too_large_for_its_images(tmp_path: Path) -> None:
    weights = make("vgg11_bn", side=32).state_dict()
    about = description(backbone="vgg11_bn")  # images of 16 px
    assert "at least 32 px" in refused(tmp_path, bytes_of(about, weights))


def test_claims_are_compared_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that describes a trillion weights: refused on names and shapes, with nothing allocated."""
    data = bytes_of(description(head="fc:1000000,1000000"))
    built: list[torch.device] = []
    original = torch.nn.Linear.__init__

    def watched(self: torch.nn.Linear, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        built.append(self.weight.device)

    monkeypatch.setattr(torch.nn.Linear, "__init__", watched)
    refused(tmp_path, data)
    assert {device.type for device in built} == {"meta"}


# --- weights that cannot be


def change_dtype(w: dict[str, torch.Tensor]) -> None:
    w["features.block1.0.weight"] = w["features.block1.0.weight"].half()


def change_shape(w: dict[str, torch.Tensor]) -> None:
    w["features.block1.0.weight"] = w["features.block1.0.weight"].reshape(1, 16, 3, 3)


def spoil(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(w: dict[str, torch.Tensor]) -> None:
        w["features.block2.1.running_var"][3] = value

    return change


def rename(w: dict[str, torch.Tensor]) -> None:
    w["bias"] = w.pop("head.classifier.0.bias")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.classifier.0.weight"), "head.classifier.0.weight is missing"),
        (lambda w: w.update(extra=torch.zeros(3)), "extra does not belong"),
        (lambda w: [w.pop(name) for name in list(w)[1:]], "and 34 more"),
        (rename, "head.classifier.0.bias is missing; bias does not belong"),
        (change_shape, "is F32[1, 16, 3, 3], not F32[16, 1, 3, 3]"),
        (change_dtype, "is F16[16, 1, 3, 3], not F32[16, 1, 3, 3]. Weights are kept in float32 (model.float())"),
        (spoil(float("nan")), "1 of 32 numbers in features.block2.1.running_var are not finite"),
        (spoil(float("-inf")), "not finite"),
    ],
)
def test_weights_that_cannot_be(
    change: Callable[[dict[str, torch.Tensor]], None], message: str, tmp_path: Path
) -> None:
    weights = make().state_dict()
    change(weights)
    assert message in refused(tmp_path, bytes_of(description(), weights))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_bytes_give_a_model_or_the_one_error(
    saved: Path, tmp_path: Path, hits: list[tuple[float, int]]
) -> None:
    data = bytearray(saved.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    for where, value in hits:
        data[int(where * header)] = value
    (tmp_path / "m").write_bytes(data)
    try:
        model = load(tmp_path / "m")
    except ModelFileError:
        return
    assert isinstance(model, Classifier)


# --- predict


def test_predict_arrays_and_files_alike(tmp_path: Path) -> None:
    model = weighted(make())
    model.train()
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 1), dtype=np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image[:, :, 0]).save(tmp_path / f"{i}.png")
    files = sorted(tmp_path.glob("*.png"))
    expected = model.predict(images)
    assert model.training
    assert expected.shape == (5, 3)
    assert expected.dtype == torch.float32
    torch.testing.assert_close(expected.sum(1), torch.ones(5))
    assert torch.equal(model.predict(files), expected)
    torch.testing.assert_close(model.predict([str(f) for f in files], batch_size=2), expected)
    torch.testing.assert_close(model.predict(list(images[..., 0])), expected)
    torch.testing.assert_close(model.predict(files[1]), expected[1:2])
    torch.testing.assert_close(model.predict(images[2]), expected[2:3])
    assert model.predict([]).shape == (0, 3)


def test_predict_is_the_softmax_of_the_centre() -> None:
    model = weighted(make()).eval()
    p = model.preprocessing
    images = np.random.default_rng(1).integers(0, 256, (3, *p.stored, 1), dtype=np.uint8)
    with torch.no_grad():
        expected = model(p.normalise(torch.from_numpy(images[:, 2:-2, 2:-2]))).softmax(1)
    torch.testing.assert_close(model.predict(images), expected)


def test_predict_images_of_all_sizes() -> None:
    images = [np.full(shape, 9, np.uint8) for shape in ((5, 9), (40, 30, 3), (16, 16, 1))]
    assert make().predict(images).shape == (3, 3)


def test_predict_refuses_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png: "):
        make().predict(tmp_path / "a.png")
    wrong: list[Any] = [
        np.zeros((8, 8)),
        np.zeros((0, 8), np.uint8),
        np.zeros(8, np.uint8),
    ]
    for array in wrong:
        with pytest.raises(TypeError, match=rf"got {array.dtype} {re.escape(str(array.shape))}"):
            make().predict([array])
    with pytest.raises(ImageError, match=r"it has 4 channels, and the model takes images of \d"):
        make().predict(np.zeros((8, 8, 4), np.uint8))


# --- building


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ("cat",)}, "at least two labels and got 1"),
        ({"labels": "cat"}, "labels must be names"),
        ({"labels": ("a", "b", "a")}, "'a' is given twice"),
        ({"labels": (0, 1)}, "labels must be names"),
        ({"backbone": "resnet"}, "there is no network"),
        ({"backbone": "vgg11"}, "at least 32 px"),
        ({"head": "gapp"}, "Did you mean 'gap'"),
        ({"pretrained": True}, "timm:resnet18"),
    ],
)
def test_what_cannot_be_built(arguments: dict[str, Any], message: str) -> None:
    plan: dict[str, Any] = {"backbone": "nin", "head": "gap", "labels": LABELS, "preprocessing": preprocessing()}
    with pytest.raises(ValueError, match=message):
        Classifier(**{**plan, **arguments})


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def test_a_single_changed_bit_of_the_numbers_is_refused(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    for at in np.random.default_rng(0).integers(begin, len(data), 40).tolist():
        message = refused(tmp_path, flipped(data, at))
        assert "does not fit its checksum" in message, message


def test_a_changed_description_is_refused(saved: Path, tmp_path: Path) -> None:
    """One that could be: labels exchanged, another mean."""
    header = saved.read_bytes()
    for old, new in ((b"cat", b"cut"), (b"0.3", b"0.2")):
        assert old in header
        assert "does not fit its checksum" in refused(tmp_path, header.replace(old, new, 1)), old


def test_tensors_exchanged_in_the_header_are_refused(saved: Path, tmp_path: Path) -> None:
    file = read(saved)
    weights = file.weights()
    one, other = next((a, b) for a in weights for b in weights if a < b and weights[a].shape == weights[b].shape
                      and not torch.equal(weights[a], weights[b]))  # fmt: skip
    swapped = weights | {one: weights[other].clone(), other: weights[one].clone()}
    about = {**file.about, "sha256": file.checksum}
    assert "does not fit its checksum" in refused(tmp_path, bytes_of(about, swapped))


def test_files_from_before_there_was_a_checksum_open(saved: Path, tmp_path: Path) -> None:
    file = read(saved)
    path = tmp_path / "old.safetensors"
    path.write_bytes(bytes_of(file.about, file.weights()))
    assert read(path).checksum is None
    assert torch.equal(load(path)(torch.zeros(1, 1, 16, 16)), load(saved)(torch.zeros(1, 1, 16, 16)))


@pytest.mark.parametrize("checksum", ["", "0" * 64, 3, ["a"], {"a": 1}])
def test_a_checksum_that_is_none(saved: Path, tmp_path: Path, checksum: object) -> None:
    file = read(saved)
    assert "checksum" in refused(tmp_path, bytes_of({**file.about, "sha256": checksum}, file.weights()))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_in_what_nobody_reads(saved: Path, tmp_path: Path, number: str) -> None:
    about = json.dumps({**read(saved).about, "gapstone": 0, "sha256": ""})
    about = about.replace('"gapstone": 0', f'"gapstone": {number}')
    assert "checksum" in refused(tmp_path, bytes_of(None, text=about))


def test_variances_below_zero_are_refused(tmp_path: Path) -> None:
    model = make("resnet18")
    next(b for name, b in model.named_buffers() if name.endswith("running_var"))[3] = -1e-3
    with pytest.raises(ValueError, match="1 of 64 variances"):
        model.save(tmp_path / "m.safetensors")


def test_images_that_need_too_much_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may claim that its pictures are of 4096×4096 px: 2 GB for the first step of the smallest network."""
    large = preprocessing().to_json() | {"size": [4096, 4096], "stored": [4096, 4096]}
    of_that = Preprocessing.from_json(large)
    message = refused(tmp_path, bytes_of(description(preprocessing=large)))
    assert re.search(r"4096×4096 px needs at least [12]\.\d GB in nin, and .* GB are allowed", message)
    with pytest.raises(ValueError, match="GB are allowed"):
        Classifier("nin", "gap", LABELS, of_that)
    monkeypatch.setenv("GAPSTONE_IMAGE_MEMORY", "4")
    assert Classifier("nin", "gap", LABELS, of_that).labels == LABELS
    monkeypatch.setattr("gapstone.models.image_memory.memory", lambda: 3 << 30)
    with pytest.raises(ValueError, match=r"half of this machine's 3 GB"):
        Classifier("nin", "gap", LABELS, of_that)
    monkeypatch.setenv("GAPSTONE_IMAGE_MEMORY", "much")
    with pytest.raises(ValueError, match="expected a number of GB"):
        make()


@pytest.mark.parametrize("name", ["vgg11", "resnet50", "googlenet"])
def test_images_of_a_thousand_pixels_are_not_too_many(name: str) -> None:
    with torch.device("meta"):
        Classifier(name, "gap", LABELS, Preprocessing(3, (1024, 1024), (1170, 1170), (0.5,) * 3, (0.5,) * 3))


def test_names_of_huge_networks_are_refused_at_once(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    refused(tmp_path, bytes_of(description(backbone="timm:test_resnet")))  # timm's own import takes seconds
    for name in ("eva_giant_patch14_224", "convnext_xxlarge", "tf_efficientnet_l2"):
        start = time.process_time()
        assert "many more" in refused(tmp_path, bytes_of(description(backbone=f"timm:{name}")))
        assert time.process_time() - start < 3
    assert "does not belong to timm:efficientnet_b0" in refused(
        tmp_path, bytes_of(description(backbone="timm:efficientnet_b0"))
    )


def test_headers_beyond_reason_are_not_read(tmp_path: Path) -> None:
    header = b"{" + b" " * 9_000_000 + b"}"
    assert "at most 8,000,000" in refused(tmp_path, struct.pack("<Q", len(header)) + header)


def test_files_beyond_the_machine_are_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapstone.models.model_file.memory", lambda: 2 * saved.stat().st_size)
    with pytest.raises(ModelFileError, match="three times that"):
        load(saved)
