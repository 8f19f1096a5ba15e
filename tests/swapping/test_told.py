"""After a swap: what the model says of itself, timm's methods, heads of one's own, Hugging Face's conventions."""

import copy
import io
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gapstone as gs
from gapstone.swapping import head_of


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32)


class TimmLike(nn.Module):
    """timm's names: global_pool, fc, num_classes, num_features, get_classifier, reset_classifier."""

    def __init__(self, num_classes: int = 10, answers_from: str = "pool") -> None:
        super().__init__()
        self.num_classes, self.num_features, self.answers_from = num_classes, 8, answers_from
        self.stem, self.last = nn.Conv2d(3, 6, 3, 4, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(8, num_classes)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        raise AssertionError("the network's own, which knows nothing of the new head")

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.stem(x))
        if self.answers_from == "relu":  # no module takes the map: the head stands beside the network
            return self.fc(F.relu(x).mean((2, 3)))
        return self.fc(self.global_pool(x))


WAYS = pytest.mark.parametrize("way", ["pool", "relu"])


@WAYS
def test_num_classes_tells_the_truth(way, x):
    model = gs.swap_head(TimmLike(answers_from=way), "gmp", 3, images=x)
    assert model.num_classes == 3 == model(x).shape[1]
    assert gs.swapped(model).wrapped == (way == "relu")
    other = gs.swap_head(model, "gap", 5, images=x)
    assert other.num_classes == 5
    assert model.num_classes == 3
    assert gs.swap_head(TimmLike(), "gap", 3, at="stem", images=x).num_features == 6


@WAYS
def test_timms_get_classifier_is_the_layer_that_makes_the_logits(way, x):
    model = gs.swap_head(TimmLike(answers_from=way), "catavgmax", 3, images=x)
    layer = model.get_classifier()
    assert isinstance(layer, nn.Linear)
    assert (layer.in_features, layer.out_features) == (16, 3)
    assert any(layer.weight is p for p in model.parameters())
    hidden = gs.swap_head(TimmLike(answers_from=way), "gap:5", 3, images=x).get_classifier()
    assert [p.shape[0] for p in hidden.parameters()] == [5, 5, 3, 3]


@WAYS
@pytest.mark.parametrize("stored", [lambda m: m, copy.deepcopy, lambda m: _again(m)])
def test_timms_reset_classifier_gives_the_head_anew(way, stored, x):
    model = stored(gs.swap_head(TimmLike(answers_from=way), "gem:p=learned", 3, images=x))
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.num_classes == 7 == model.get_classifier().out_features
    assert (gs.swapped(model).classes, gs.swapped(model).head) == (7, "gem:p=learned")
    assert head_of(model)[1].spec == "gem:p=learned"
    model.reset_classifier(4, "max")
    assert (gs.swapped(model).head, model(x).shape) == ("gmp", (2, 4))
    model.reset_classifier(0)
    assert model.num_classes == 0
    features = model(x)
    assert features.shape == (2, 8)
    assert isinstance(model.get_classifier(), nn.Identity)
    model.reset_classifier(2)
    torch.testing.assert_close(model(x), model.get_classifier()(features))
    assert gs.explain(model.eval(), x).additive
    with pytest.raises(ValueError, match="global_pool is one of avg, fast"):
        model.reset_classifier(2, "token")


def _again(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


# ---- heads of one's own


class Mine(nn.Module):
    def __init__(self, channels: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm2d(channels), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x).amax((2, 3)))


@WAYS
@pytest.mark.parametrize("classes", [None, 3])
def test_a_head_may_be_any_module(way, classes, x):
    original, head = TimmLike(answers_from=way).eval(), Mine()
    model = gs.swap_head(original, head, classes, images=x)
    assert model(x).shape == (2, 3)
    assert model.num_classes == 3
    features = original.last(original.stem(x))
    torch.testing.assert_close(model(x), head(features.relu() if way == "relu" else features))
    assert model.get_classifier() is head
    assert not head.training
    report = gs.swapped(model)
    assert (report.head, report.classes, report.channels) == ("Mine", 3, 8)
    assert "head 'Mine' of 3 classes" in str(report)
    explained = gs.explain(model, x)
    assert explained.completeness.max() < 1e-5
    model.train()
    F.cross_entropy(model(x), torch.tensor([0, 2])).backward()
    assert head.fc.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="is a Mine of your own"):
        model.reset_classifier(4)
    with pytest.raises(ValueError, match="has a head of your own, a Mine"):
        head_of(model)
    assert gs.swap_head(model, "gap", 2, images=x)(x).shape == (2, 2)


def test_a_lazy_head_is_made_for_the_map(x):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(6))
    assert gs.swap_head(TimmLike(), head, images=x)(x).shape == (2, 6)


@pytest.mark.parametrize(
    ("head", "classes", "error", "words"),
    [
        (nn.Linear(8, 3), None, ValueError, "given the map (2, 8, 4, 4), failed (RuntimeError"),
        (nn.Conv2d(8, 3, 1), None, ValueError, "gave (2, 3, 4, 4); a head takes the map (N, C, h, w) and gives logits"),
        (Mine(), 5, ValueError, "gave 3 logits, and num_classes=5: leave num_classes out"),
        (Mine(9), None, ValueError, "nn.Linear(8, 10))"),
        (Mine, None, TypeError, "give the module, not its class: Mine(…)"),
        (7, None, TypeError, "a head is the text of one ('gap', 'fc:512:dropout=0.5', …) or an nn.Module"),
    ],
)
def test_heads_that_cannot_be_say_what_is_expected(head, classes, error, words, x):
    model = TimmLike()
    with pytest.raises(error) as found:
        gs.swap_head(model, head, classes, images=x)
    assert words in str(found.value)


# ---- Hugging Face's conventions, on stand-ins


class Output(OrderedDict):
    """As transformers' ModelOutput: attributes, and what was given."""

    def __init__(self, loss: Tensor | None = None, logits: Tensor | None = None, hidden_states: object = None) -> None:
        super().__init__((k, v) for k, v in vars().items() if k not in ("self", "__class__") and v is not None)
        self.loss, self.logits, self.hidden_states = loss, logits, hidden_states


class Config:
    """As transformers' PretrainedConfig: the number of labels is that of their names."""

    def __init__(self, num_labels: int) -> None:
        self.num_labels = num_labels

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        self.id2label = {i: f"LABEL_{i}" for i in range(value)}


class Pretrained(nn.Module):
    def __init__(self, num_labels: int = 5) -> None:
        super().__init__()
        self.config, self.num_labels = Config(num_labels), num_labels

    def loss(self, logits: Tensor, labels: Tensor | None) -> Tensor | None:
        if labels is None:
            return None
        return F.cross_entropy(logits.view(-1, self.num_labels), labels.view(-1), reduction="mean")


class ConvForImageClassification(Pretrained):
    """As ResNetForImageClassification: the pooler in the body, flatten and linear behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
        self.pooler = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(8, 5))

    def forward(self, pixel_values=None, labels=None, output_hidden_states=None, **kwargs):
        last = self.body(pixel_values)
        logits = self.classifier(self.pooler(last))
        return Output(self.loss(logits, labels), logits, (last,) if output_hidden_states else None)


class ViTForImageClassification(Pretrained):
    """As the one of that name: the class token of the last layer norm goes into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.cls = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.randn(1, 1, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.layernorm, self.classifier = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, pixel_values=None, labels=None, output_hidden_states=None, **kwargs):
        tokens = self.patches(pixel_values).flatten(2).transpose(1, 2)
        tokens = self.layer(torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1))
        logits = self.classifier(self.layernorm(tokens)[:, 0, :])
        return Output(self.loss(logits, labels), logits, (tokens,) if output_hidden_states else None)


NETWORKS = pytest.mark.parametrize("network", [ConvForImageClassification, ViTForImageClassification])


@NETWORKS
@pytest.mark.parametrize("head", ["gmp", "mine"])
def test_hugging_faces_models_keep_their_call_and_their_output(network, head, x):
    original = network().eval()
    new = Mine(8, 3) if head == "mine" else "gmp"
    model = gs.swap_head(original, new, None if head == "mine" else 3, images=x)
    assert type(model) is network
    assert (model.num_labels, model.config.num_labels, model.num_classes) == (3, 3, 3)
    assert (original.num_labels, original.config.num_labels) == (5, 5)
    labels = torch.tensor([0, 2])
    out = model(pixel_values=x, labels=labels, output_hidden_states=True)
    assert type(out) is Output
    assert out.logits.shape == (2, 3)
    assert len(out.hidden_states) == 1
    torch.testing.assert_close(out.loss, F.cross_entropy(out.logits, labels))
    assert model(x).loss is None
    # what a Trainer does
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    first = None
    for _ in range(5):
        loss = model(pixel_values=x, labels=labels).loss
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first
    assert next(model.parameters()).grad.abs().sum() > 0  # the body, too


@NETWORKS
def test_the_head_stands_on_the_map_of_hugging_faces_models(network, x):
    original = network().eval()
    model = gs.swap_head(original, "gap", 3, images=x)
    if network is ConvForImageClassification:
        features = original.body(x)
    else:
        tokens = original.patches(x).flatten(2).transpose(1, 2)
        tokens = original.layer(torch.cat([original.cls.expand(2, -1, -1), tokens], 1))
        features = original.layernorm(tokens)[:, 1:].transpose(1, 2).reshape(2, 8, 4, 4)
    _, head = head_of(model)
    torch.testing.assert_close(model(x).logits, head(features))
    explained = gs.explain(model, x)
    assert explained.maps.shape[2:] == features.shape[2:]
    assert explained.additive
    assert explained.completeness.max() < 1e-5
    for other in (copy.deepcopy(model), gs.swap_head(model, "gmp", 4, images=x)):
        assert other(pixel_values=x).logits.shape[1] in (3, 4)
    assert model(pixel_values=x).logits.shape == (2, 3)
    if network is ViTForImageClassification:
        with pytest.raises(ValueError, match="give images of those proportions"):
            model(torch.randn(1, 3, 16, 64))


def test_a_config_that_is_none_is_left_alone(x):
    model = TimmLike()
    model.config = SimpleNamespace(name="mine")
    assert vars(gs.swap_head(model, "gap", 3, images=x).config) == {"name": "mine"}
