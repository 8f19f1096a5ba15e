"""Folders of Hugging Face as backbones: the numbers of transformers, nothing run or fetched, sentences for the rest."""

import io
import json
import re
import shutil
import socket

import numpy as np
import pytest
import torch
from rich.console import Console

transformers = pytest.importorskip("transformers", reason="needs gapstone[hf]")

from gapstone.comparing.plan import CompareRequest  # noqa: E402
from gapstone.comparing.run_comparison import compare  # noqa: E402
from gapstone.heads.reads import Reads  # noqa: E402
from gapstone.images.preprocessing import Preprocessing  # noqa: E402
from gapstone.maps.explain import explain  # noqa: E402
from gapstone.maps.open_model import open_model  # noqa: E402
from gapstone.models.backbone_weights import digest, read_weights  # noqa: E402
from gapstone.models.classifier import Classifier, ModelFileError, load  # noqa: E402
from gapstone.models.model_file import read, write  # noqa: E402
from gapstone.nets import build, pretrained_input  # noqa: E402
from gapstone.training.training_data import TrainOptions  # noqa: E402
from tests.nets.hf_folders import CROPPED, MODELS, SIDE, SQUASHED, save  # noqa: E402

pytestmark = pytest.mark.xdist_group("transformers")  # two seconds of imports


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return save(tmp_path_factory.mktemp("hf") / "vit", "vit")


@pytest.fixture
def copied(vit, tmp_path):
    return shutil.copytree(vit, tmp_path / "copied")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    connect = socket.socket.connect

    def local_alone(self, address):
        assert self.family == socket.AF_UNIX, f"a request to {address}"  # processes of one's own
        return connect(self, address)

    def refuse(host, *_more, **_named):
        raise AssertionError(f"a request to {host}")

    monkeypatch.setattr(socket.socket, "connect", local_alone)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def images(*size, channels=3):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_numbers_are_those_of_transformers(vit):
    features = build(f"hf:{vit}", pretrained=True).eval()
    net = transformers.AutoModel.from_pretrained(vit, local_files_only=True).eval()
    for size in ((SIDE, SIDE), (48, 60)):
        x = images(*size)
        hidden = net(pixel_values=x, interpolate_pos_encoding=size[0] != SIDE).last_hidden_state
        grid = size[0] // 8, size[1] // 8
        with torch.no_grad():
            output = features.read(x, Reads(class_token=True, layers=2))
            assert torch.equal(features(x), hidden[:, 1:].transpose(1, 2).reshape(2, 16, *grid))
        assert torch.equal(output.class_token[:, 16:], hidden[:, 0])
        assert torch.equal(output.maps[:, 16:], features(x))
    more = net(pixel_values=images(SIDE, SIDE), output_hidden_states=True).hidden_states[-2]
    token = features.read(images(SIDE, SIDE), Reads(class_token=True, layers=2)).class_token[:, :16]
    assert torch.equal(token, net.layernorm(more)[:, 0])  # every layer through the final norm
    assert (features.class_token, features.stride, features.smallest) == ("embeddings.cls_token", 8, 8)
    assert torch.equal(features.last(features.before_last(x), size), features(x))


def test_a_classifier_as_it_is(vit):
    opened = open_model(f"hf:{vit}")
    assert opened.labels == ("crane (0)", "dog", "crane (2)")
    net = transformers.AutoModelForImageClassification.from_pretrained(vit, local_files_only=True).eval()
    x = images(SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(opened.model(x), net(pixel_values=x).logits)
    explained = explain(opened.model, x)
    assert explained.maps.shape == (2, 3, 4, 4)
    assert torch.allclose(explained.maps.sum((2, 3)) + explained.bias, explained.logits, atol=1e-5)
    assert opened.input_sizes == (8, None)


def test_a_folder_that_says_so_answers_several_labels(vit, copied):
    change(copied / "config.json", problem_type="multi_label_classification")
    several, one = open_model(f"hf:{copied}"), open_model(f"hf:{vit}")
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert several.multi_label
    assert not one.multi_label
    logits = several.explain([picture]).logits[0]
    torch.testing.assert_close(several.probabilities(picture), logits.sigmoid())
    torch.testing.assert_close(one.probabilities(picture), logits.softmax(0))


def test_a_model_file_needs_no_folder(copied, tmp_path):
    backbone = f"hf:{copied}"
    model = Classifier(backbone, "cls+gap:layers=2", ("a", "b"), pretrained_input(backbone), pretrained=True).eval()
    file, again = model.save(tmp_path / "model.safetensors"), tmp_path / "again.safetensors"
    whole = digest(build(backbone, pretrained=True))
    with pytest.raises(ValueError, match="name its folder"):
        read_weights(file)
    assert read_weights(file, backbone).state.keys() == model.features.state_dict().keys()
    change(copied / "config.json", layer_norm_eps=0.1)
    assert digest(build(backbone, pretrained=True)) != whole  # equal weights, another function
    with pytest.raises(ValueError, match="configurations differ"):
        read_weights(file, backbone)
    shutil.rmtree(copied)
    opened = load(file)
    assert torch.equal(opened(images(40, SIDE)), model(images(40, SIDE)))
    assert (opened.backbone, str(tmp_path) in str(read(file).about)) == ("hf:copied", False)
    assert opened.save(again).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "its config is missing"),
        ("{", "no configuration"),
        ('{"model_type": "vit", "auto_map": {"AutoModel": "code.py"}}', "no configuration"),
        ('{"model_type": "no_such_network"}', "does not know"),
        ('{"hidden_size": 4000000, "model_type": "vit"}', "has many more|cannot be built"),
        (f'{{"x": "{"x" * 200_000}"}}', "no configuration"),
    ],
)
def test_a_model_file_with_a_foreign_configuration(vit, tmp_path, config, said):
    backbone = f"hf:{vit}"
    model = Classifier(backbone, "gap", ("a", "b"), pretrained_input(backbone), pretrained=True)
    file = read(model.save(tmp_path / "model.safetensors"))
    about = {key: value for key, value in file.about.items() if key != "config"}
    write(tmp_path / "forged.safetensors", file.weights(), about | ({"config": config} if config else {}))
    with pytest.raises(ModelFileError, match=said):
        load(tmp_path / "forged.safetensors")


def test_its_own_pooler(vit, copied):
    with pytest.raises(ValueError, match="no weights of its pooler"):  # that of a classifier that does not use it
        build(f"hf:{vit}", pretrained=True, pooler=True)
    shutil.rmtree(copied)
    net = transformers.ViTModel(transformers.ViTConfig.from_pretrained(vit)).eval()
    net.save_pretrained(copied)
    features = build(f"hf:{copied}", pretrained=True, pooler=True).eval()
    x = images(SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(features.read(x, Reads(own=True)).own, net(pixel_values=x).pooler_output)
    assert features.pooler == ("net.pooler.dense.weight", "net.pooler.dense.bias")


def test_images_are_prepared_as_its_processor_does(vit, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    crop = {"crop_size": {"height": 33, "width": 33}}
    for number, processor in enumerate((
        transformers.ViTImageProcessor(size=SQUASHED, rescale_factor=1 / 127.5, do_normalize=False),
        transformers.CLIPImageProcessor(size=CROPPED, **crop),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 35}, crop_pct=0.875),
        transformers.LevitImageProcessor(size={"shortest_edge": 35}, **crop),
    )):  # fmt: skip
        processor.save_pretrained(tmp_path / str(number))
        ours = pretrained_input(f"hf:{tmp_path / str(number)}")
        assert Preprocessing.from_json(ours.to_json()) == ours
        mine = ours.normalise(torch.from_numpy(ours.centre(ours.fit(photo)[None]).copy()))[0]
        theirs = processor(images=photo, return_tensors="pt")["pixel_values"][0]
        assert ((mine - theirs).abs() * min(ours.std)).max() * 255 <= 2.5  # rounded to whole numbers on the way
        assert ((mine - theirs).abs() * min(ours.std)).mean() * 255 <= 0.1
    for processor in (
        transformers.MobileViTImageProcessor(),  # blue first
        transformers.ViTImageProcessor(resample=1),
        transformers.ViTImageProcessor(do_resize=False),
    ):
        processor.save_pretrained(tmp_path / "other")
        with pytest.raises(ValueError, match="cannot prepare images as"):
            pretrained_input(f"hf:{tmp_path / 'other'}")


def test_what_is_refused(copied):
    def refused(said, pretrained=True, **values):
        was = (copied / "config.json").read_text()
        change(copied / "config.json", **values)
        with pytest.raises(ValueError, match=said):
            build(f"hf:{copied}", pretrained=pretrained)
        (copied / "config.json").write_text(was)

    refused("names no model_type", model_type=3)
    refused(
        "does not know. Code that comes with a folder is never run", model_type="own", auto_map={"AutoModel": "m.N"}
    )
    refused("quantised", quantization_config={"bits": 4})
    refused("name it, --backbone timm:", model_type="timm_wrapper")
    refused("no network of images", model_type="bert")
    refused(
        "not in the order of the image", model_type="hiera", num_query_pool=2, patch_size=[7, 7], image_size=[64] * 2
    )
    refused("draws lots", model_type="vit_mae")
    refused("cannot be read|missing", num_hidden_layers=9)
    refused("no feature map|makes no", patch_size=SIDE)
    refused("cannot make it|makes no", hidden_size="wide")
    with pytest.raises(ValueError, match=r"takes images of 3 channels.*these have 1"):
        build(f"hf:{copied}", in_channels=1)
    with pytest.raises(ValueError, match=r"no pooler|no weights of its pooler"):
        build(f"hf:{copied}", pretrained=True, pooler=True)
    with pytest.raises(ValueError, match=r"has not so many layers.*it has 3"):
        build(f"hf:{copied}").check_reads(Reads(layers=4))
    (copied / "adapter_config.json").write_text("{}")
    refused("adapter")


def test_folders_that_are_none(copied, tmp_path):
    def said(sentence, open_it=build, **more):
        with pytest.raises(ValueError, match=re.compile(sentence)):
            open_it(f"hf:{copied}", **more)

    for name in ("facebook/dinov2-small", tmp_path / "nothing"):
        with pytest.raises(ValueError, match=r"no folder on this machine.*downloads nothing"):
            build(f"hf:{name}")
    with pytest.raises(ValueError, match="is a file"):
        build(f"hf:{copied / 'config.json'}")
    (copied / "preprocessor_config.json").unlink()
    said("has no preprocessor_config.json", pretrained_input)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    said("cannot be read", pretrained=True)
    weights.unlink()
    (copied / "pytorch_model.bin").write_bytes(b"")
    said("pytorch_model.bin, and pickled", pretrained=True)
    (copied / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../other.safetensors"}}')
    said("which is no file of the folder", pretrained=True)
    (copied / "config.json").write_text("[" * 100_000)
    said("config.json is damaged")
    (copied / "config.json").unlink()
    said("has no config.json")


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_networks_of_all_kinds(kind, tmp_path):
    folder = save(tmp_path / kind, kind)
    features = build(f"hf:{folder}", pretrained=True).eval()
    mapping = transformers.CLIPVisionModel if kind == "clip" else transformers.AutoModel
    net = mapping.from_pretrained(folder, local_files_only=True).eval()
    side = 64 if features.fixed is None and features.stride == 32 else SIDE
    x = images(side, side)
    hidden = net(pixel_values=x).last_hidden_state
    maps = features(x)
    if hidden.dim() == 3:
        hidden = hidden[:, len(features.prefix) :].transpose(1, 2).reshape(maps.shape)
    assert torch.equal(maps, hidden)
    prefixes = {"vit": 1, "deit": 2, "beit": 1, "dinov2": 1, "dinov2 with registers": 3, "clip": 1}
    assert len(features.prefix) == prefixes.get(kind, 0)
    assert (features.class_token is not None) == (kind in prefixes)
    if features.last_stage:
        assert torch.equal(features.last(features.before_last(x), (side, side)), maps)
    if features.fixed is None:
        assert features(images(2 * side, 3 * side)).shape[2:] == (2 * maps.shape[2], 3 * maps.shape[3])
    if kind in ("vit", "swin", "convnext"):
        explained = explain(open_model(f"hf:{folder}").model, x)
        assert torch.allclose(explained.maps.sum((2, 3)) + explained.bias, explained.logits, atol=1e-5)


@pytest.mark.slow
def test_a_comparison_of_what_a_head_reads(tmp_path):
    """Ids do not depend on where the folder lies, another network is not taken for it, the model needs no folder."""
    folder = save(tmp_path / "dinov2", "dinov2")
    data = tmp_path / "data.npz"
    images = np.random.default_rng(0).integers(0, 120, (60, SIDE, SIDE, 3)).astype(np.uint8)
    for number, image in enumerate(images):
        image[8:24, 8:24, number % 3] = 250
    np.savez(data, images=images, labels=np.arange(60) % 3)

    def compared(folder):
        choices = TrainOptions(str(data), backbone=f"hf:{folder}", epochs=3)
        request = CompareRequest(choices, ("cls", "gap:norm=batch", "attention", "own", "gap:layers=2"), 1, quick=True)
        return compare(request.checked(), tmp_path / "out", Console(file=io.StringIO()), "gapstone compare …")

    results = compared(folder)
    assert [trial["status"] for trial in results["trials"]] == ["done"] * 4  # DINOv2's own pooler is the class token
    moved = folder.rename(tmp_path / "elsewhere")
    assert [trial["id"] for trial in compared(moved)["trials"]] == [trial["id"] for trial in results["trials"]]
    model = load(tmp_path / "out" / "model.safetensors")
    assert model.backbone in ("hf:dinov2", "hf:elsewhere")
    change(moved / "config.json", layer_norm_eps=0.5)
    changed = {trial["id"] for trial in compared(moved)["trials"]}
    assert not changed & {trial["id"] for trial in results["trials"]}
