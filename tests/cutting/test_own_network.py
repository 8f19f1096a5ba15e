"""A network of the user's own as a backbone: cut, known by what it does, made again in another process."""

import functools

import cloudpickle
import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone import nets
from gapstone.cutting.cut import cut_head
from gapstone.cutting.own_network import looks_trained, own_network
from gapstone.images.preprocessing import Preprocessing
from gapstone.training.choose_backbone import choose_backbone

SMALL = Preprocessing(3, (32, 32), (32, 32), (0.5,) * 3, (0.25,) * 3)


class Net(nn.Module):
    """A head that is a function, a module and a parameter; a mode that changes what runs."""

    def __init__(self, width: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.5))
        self.last = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.head = nn.Linear(2 * width, classes)
        self.scale = nn.Parameter(torch.ones(classes))

    def forward(self, x):
        maps = torch.relu(self.last(self.body(x)))
        return self.head(maps.mean((2, 3))) * self.scale


def maps_of(net, x):
    return torch.relu(net.last(net.body(x)))


@pytest.fixture
def x():
    return torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))


def test_a_cut_of_one_is_a_cut_of_another(x):
    torch.manual_seed(0)
    first, second = Net().eval(), Net().eval()
    expected = maps_of(second, x)
    random = torch.random.get_rng_state()
    trunk, cut, _ = cut_head(first)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.equal(cut.apply(second)(x), expected)
    assert not torch.equal(trunk(x), expected)
    assert sorted(trunk.state_dict()) == sorted(
        f"net.{name}" for name in Net().state_dict() if "head" not in name and name != "scale"
    )
    with pytest.raises(ValueError, match=r"Sequential has other modules .* must build the same one at each call"):
        cut.apply(nn.Sequential(nn.Conv2d(3, 3, 3)))


def test_one_without_a_head_stays_as_it_is(x):
    body = Net().body.eval()
    trunk, cut, _ = cut_head(body)
    assert trunk is body
    assert cut is None


def test_a_network_that_is_given_keeps_its_weights_and_is_not_changed(x):
    net = Net().eval()
    before, answer = {name: tensor.clone() for name, tensor in net.state_dict().items()}, net(x)
    own = own_network(net)
    facts = own.trunk.facts
    assert (facts.in_channels, facts.channels, facts.stride, facts.fixed_weights) == (3, 8, 4, True)
    assert facts.source == f"{Net.__module__}.Net"
    one, other = nets.build(own.name).eval(), nets.build(own.name).eval()
    assert torch.equal(one(x), maps_of(net, x))
    one.net.net.last.weight.data.zero_()  # each has its own
    assert torch.equal(other(x), maps_of(net, x))
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    assert torch.equal(net(x), answer)


def test_a_function_builds_new_ones():
    own = own_network(Net)
    assert not own.trunk.facts.fixed_weights
    weights = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        weights.append(nets.build(own.name).net.net.last.weight)
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])
    # as of Classifier: the features before the head, the same under every head
    torch.manual_seed(0)
    model = gs.Classifier(Net, "gmp", ("a", "b"), SMALL)
    assert torch.equal(model.features.net.net.last.weight, weights[0])


def test_its_name_says_what_it_does():
    torch.manual_seed(0)
    net = Net()
    names = [own_network(each).name for each in (Net, Net, functools.partial(Net, 8), lambda: Net(8), net)]
    assert names[0] == names[1]
    assert len(set(names)) == 4
    net.last.weight.data.add_(1)
    assert own_network(net).name != names[-1]
    assert all(name.startswith("module:Net-") for name in names)


def test_it_goes_to_another_process(x):
    net = Net().eval()
    for own in (own_network(net), own_network(lambda: Net(8))):
        trunk = cloudpickle.loads(cloudpickle.dumps(own.trunk))
        torch.manual_seed(3)
        made = trunk.make().eval()
        torch.manual_seed(3)
        assert torch.equal(made(x), own.trunk.make().eval()(x))


def test_what_looks_trained():
    net = Net()
    assert looks_trained(net) is False
    net.body[1].bias.data[0] = 0.1
    assert looks_trained(net) is True
    assert looks_trained(nn.Sequential(nn.Conv2d(3, 3, 3))) is None
    trained, random = own_network(net).name, own_network(Net).name
    begun = own_network(Net()).name
    assert choose_backbone(trained, False, None, "auto", 32).freeze
    assert not choose_backbone(trained, False, None, "finetune", 32).freeze
    assert not choose_backbone(begun, False, None, "auto", 32).freeze
    assert "its norms are as they begin" in choose_backbone(begun, False, None, "auto", 32).described
    assert choose_backbone(begun, False, None, "freeze", 32).freeze
    with pytest.raises(ValueError, match=r"--freeze: .* other random weights each time it is built"):
        choose_backbone(random, False, None, "freeze", 32)
    with pytest.raises(ValueError, match=r"--from-scratch: .* give a function that builds one"):
        choose_backbone(trained, False, None, "scratch", 32)
    with pytest.raises(ValueError, match="--pretrained: a network of your own"):
        choose_backbone(trained, True, None, "auto", 32)


@pytest.mark.parametrize(
    ("backbone", "error", "words"),
    [
        (3, TypeError, "expected a name, an nn.Module, or a function"),
        (lambda: 3, TypeError, "returned int, not an nn.Module"),
        (lambda width: Net(width), TypeError, "needs width, and is called without arguments: give lambda"),
        (nn.Flatten(), ValueError, "backbone does not know what images Flatten takes"),
    ],
)
def test_what_is_no_network(backbone, error, words):
    with pytest.raises(error, match=words):
        own_network(backbone)


def test_two_calls_must_build_one_network():
    count = iter(range(1, 9))
    with pytest.raises(ValueError, match="two calls built two networks"):
        own_network(lambda: Net(next(count)))


def test_a_saved_model_is_opened_only_with_its_network(tmp_path, x):
    model = gs.Classifier(Net(), "gap", ("a", "b"), SMALL).eval()
    path = model.save(tmp_path / "m.safetensors")
    again = gs.load(path, backbone=Net)
    assert torch.equal(again(x), model(x))
    with pytest.raises(ValueError, match=r"its backbone is .*\.Net, and .*\.Conv2d was given"):
        gs.load(path, backbone=nn.Conv2d(3, 3, 3))
    with pytest.raises(ValueError, match=r"features\.net\.net\.body\.0\.weight is F32\[4, 3, 3, 3\], not F32\[8"):
        gs.load(path, backbone=lambda: Net(8))
    nets.own_features._registered.clear()
    with pytest.raises(ValueError, match=r"which no file can make: give it in Python, gs\.load\(path, backbone=Net"):
        gs.load(path)
    assert torch.equal(gs.load(path, backbone=Net())(x), model(x))
    plain = gs.Classifier("nin", "gap", ("a", "b"), SMALL).save(tmp_path / "nin.safetensors")
    with pytest.raises(ValueError, match="its backbone is nin, which needs no network of yours"):
        gs.load(plain, backbone=Net)


def test_heads_that_read_more_are_refused():
    with pytest.raises(ValueError, match="of a network of one's own the last map alone is read, not the class token"):
        gs.Classifier(Net, "cls", ("a", "b"), SMALL)
