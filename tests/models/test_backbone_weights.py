"""`--weights`: checkpoints as people have them give the network's weights; what is left out is said."""

import pytest
import torch

from gapstone import nets
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.backbone_weights import read_weights
from gapstone.models.classifier import Classifier

TIMM = "timm:test_resnet"


def prefixed(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.fixture(scope="module", params=["resnet18", "nin", TIMM])
def network(request):
    """(its name, the names of timm's or its own tensors and these, as `read_weights` gives them)."""
    if request.param == TIMM:
        pytest.importorskip("timm")
    torch.manual_seed(0)
    state = nets.build(request.param).state_dict()
    return request.param, {name.removeprefix("net."): tensor for name, tensor in state.items()}, state


def saved(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    return tmp_path / "w.pth"


HEAD = {"projector.0.weight": torch.ones(2, 2), "projector.2.weight": torch.ones(2, 2)}
LOSS = {"criterion.weight": torch.ones(2)}


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda own: own, ()),
        (lambda own: prefixed("module.", own), ()),
        (lambda own: {"state_dict": own, "epoch": 3}, ("state_dict is taken",)),
        (
            lambda own: {"state_dict": {**prefixed("model.", own), **LOSS}},
            (
                "state_dict is taken",
                "of its tensors those named model.… are the network's; 1 other tensor of the file left out",
            ),
        ),
        (
            lambda own: {"student": {"a": torch.ones(1)}, "teacher": prefixed("backbone.", own | HEAD)},
            ("teacher is taken", "left out: projector"),
        ),
        (
            lambda own: prefixed("module.encoder_k.", own) | prefixed("module.encoder_q.", own | HEAD),
            ("encoder_q", "left out: projector"),
        ),
    ],
)
def test_checkpoints_as_people_have_them(network, tmp_path, wrap, said):
    name, own, state = network
    found = read_weights(saved(wrap(own), tmp_path), name)
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], tensor) for key, tensor in state.items())
    assert found.published is None  # without their head nobody knows what they expect of images
    assert all(any(words in one for one in found.said) for words in said), found.said
    assert bool(found.said) == bool(said)


def test_what_is_missing_or_too_much_is_refused(network, tmp_path):
    name, own, _ = network
    first = next(iter(own))
    with pytest.raises(ValueError, match=rf"not the weights of {name}: 1 of its (\d+ )?tensors are missing"):
        read_weights(saved({key: own[key] for key in own if key != first}, tmp_path), name)
    module = first.rpartition(".")[0]
    larger = own | {f"{module}.9.weight": torch.ones(3)}
    with pytest.raises(ValueError, match=rf"not the weights of {name}: .*{module}\.9\.weight"):
        read_weights(saved(larger, tmp_path), name)
    with pytest.raises(ValueError, match=rf"not the weights of {name}"):
        read_weights(saved({"x": torch.ones(2)}, tmp_path), name)
    with pytest.raises(ValueError, match=r"not finite"):
        read_weights(saved(own | {first: torch.full_like(own[first], torch.nan)}, tmp_path), name)


@pytest.mark.parametrize("name", ["resnet18", TIMM])
def test_a_classifier_of_other_classes_leaves_its_head(tmp_path, name):
    if name == TIMM:
        pytest.importorskip("timm")
    state = {key.removeprefix("net."): tensor for key, tensor in nets.build(name).state_dict().items()}
    width = nets.build(name).channels
    found = read_weights(saved(state | {"fc.weight": torch.ones(7, width), "fc.bias": torch.ones(7)}, tmp_path), name)
    assert found.said == ("its head of 7 classes is left out",)
    assert found.published is not None
    assert all(torch.equal(found.state[key], tensor) for key, tensor in zip(found.state, state.values(), strict=True))


def test_the_state_of_a_classifier(tmp_path):
    model = Classifier("nin", "gap", ("a", "b"), Preprocessing(3, (16, 16), (16, 16), (0.3,) * 3, (0.2,) * 3))
    found = read_weights(saved(model.state_dict(), tmp_path), "nin")
    expected = model.features.state_dict()
    assert found.state.keys() == expected.keys()
    assert all(torch.equal(found.state[key], tensor) for key, tensor in expected.items())
