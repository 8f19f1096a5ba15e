"""Norms after the pool: their scale is held, and the maps add up; a softmax at the end is left out; both are said."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gapstone as gs
from tests.marks import slow_but

CHANNELS, CLASSES = 8, 5


class Net(nn.Module):
    """A stem, and a head given as a function of the pooled vectors, or of the map."""

    def __init__(self, head, pools=True, norm=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 2, 1), nn.GELU(), nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1))
        self.head, self.pools, self.fc = head, pools, nn.Linear(CHANNELS, CLASSES)
        self.norm = nn.Identity() if norm is None else norm
        for p in self.norm.parameters():
            nn.init.normal_(p, 1, 0.3)
        self.w, self.b = (nn.Parameter(torch.randn(CHANNELS)) for _ in range(2))

    def forward(self, x):
        x = self.stem(x)
        return self.head(self, x.mean((2, 3)) if self.pools else x)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 20, 28)


def written_layer_norm(s, v):  # as ConvNeXt's authors write it
    u = v.mean(1, keepdim=True)
    variance = (v - u).pow(2).mean(1, keepdim=True)
    return s.fc(s.w * ((v - u) / torch.sqrt(variance + 1e-6)) + s.b)


def written_rms_norm(s, v):  # as Llama's authors write it
    return s.fc(v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + 1e-6) * s.w)


STD, RMS, LENGTH = "the norm's standard deviation", "the norm's root mean square", "the length of the vectors"
NORMS = {
    "layer norm": (lambda s, v: s.fc(s.norm(v)), nn.LayerNorm(CHANNELS), STD),
    "rms norm": (lambda s, v: s.fc(s.norm(v)), nn.RMSNorm(CHANNELS), RMS),
    "group norm": (lambda s, v: s.fc(s.norm(v)), nn.GroupNorm(2, CHANNELS), STD),
    "normalised vectors": (lambda s, v: s.fc(F.normalize(v)), None, LENGTH),
    "cosine": (lambda s, v: 16 * F.normalize(v) @ F.normalize(s.fc.weight).t(), None, LENGTH),
    "layer norm, written out": (written_layer_norm, None, STD),
    "rms norm, written out": (written_rms_norm, None, STD),
    "std": (lambda s, v: s.fc((v - v.mean(1, keepdim=True)) / (v.std(1, keepdim=True) + 1e-6)), None, STD),
    "length, written out": (lambda s, v: s.fc(v / v.norm(dim=1, keepdim=True).clamp(min=1e-12)), None, LENGTH),
    "two norms": (lambda s, v: s.fc(F.normalize(s.norm(v))), nn.LayerNorm(CHANNELS), STD),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_after_the_pool_adds_up_with_its_scale_held(name, images):
    head, norm, says = NORMS[name]
    model = Net(head, norm=norm).eval()
    explained = gs.explain(model, images)
    torch.testing.assert_close(explained.logits, model(images).detach(), rtol=1e-5, atol=1e-6)
    assert explained.additive
    assert says in explained.held
    assert explained.bias.shape == ((3, CLASSES) if name == "two norms" else (CLASSES,))
    torch.testing.assert_close(explained.maps.sum((2, 3)) + explained.bias, explained.logits, rtol=1e-5, atol=3e-6)
    assert explained.maps.sum((2, 3)).abs().min(0).values.max() > 1e-3  # and not because all of it is called bias
    some = gs.explain(model, images, [3, 1])
    torch.testing.assert_close(some.maps, explained.maps[:, [3, 1]])
    assert explained.evidence(0, (20, 28))[0].held == explained.held


def test_the_map_is_the_centred_map_over_the_standard_deviation(images):
    model = Net(lambda s, v: s.fc(s.norm(v)), norm=nn.LayerNorm(CHANNELS)).eval()
    with torch.no_grad():
        x = model.stem(images)
        v = x.mean((2, 3))
        std = (v.var(1, correction=0) + model.norm.eps).sqrt()
        each = (x - x.mean(1, keepdim=True)) / std[:, None, None, None] * model.norm.weight[:, None, None]
        expected = torch.einsum("kc,nchw->nkhw", model.fc.weight, each) / x[0, 0].numel()
    torch.testing.assert_close(gs.explain(model, images).maps, expected, rtol=1e-5, atol=1e-6)


def test_a_constant_before_the_norm_makes_each_image_its_own_bias(images):
    model = Net(lambda s, v: s.fc(s.norm(v + s.b)), norm=nn.LayerNorm(CHANNELS)).eval()
    explained = gs.explain(model, images)
    assert explained.additive
    assert explained.bias.shape == (3, CLASSES)
    assert explained.completeness.max() < 3e-6
    one = explained.evidence(1, (20, 28))[2]
    assert one.bias == pytest.approx(float(explained.bias[1, 2]))


@pytest.mark.parametrize(
    "head",
    [
        lambda s, f: s.fc(s.norm(f).mean((2, 3))),  # group norm before the pool: after the module that is named
        lambda s, f: s.fc(F.layer_norm(f.permute(0, 2, 3, 1), (CHANNELS,), s.w, s.b).mean((1, 2))),
        lambda s, f: s.fc(F.instance_norm(f, weight=s.w, bias=s.b).amax((2, 3))),
        lambda s, f: s.fc(gs.pool(f, "attention", query=s.w)),
    ],
)
def test_from_a_named_module_too(head, images):
    model = Net(head, pools=False, norm=nn.GroupNorm(1, CHANNELS)).eval()
    explained = gs.explain(model, images, at="stem")
    assert explained.additive
    assert explained.held
    assert explained.completeness.max() < 3e-6


def test_hidden_layers_after_the_norm_are_not_promised_and_nearer(images):
    model = Net(lambda s, v: s.fc(F.gelu(s.norm(v))), norm=nn.LayerNorm(CHANNELS)).eval()
    explained = gs.explain(model, images)
    assert not explained.additive
    assert explained.held == (STD,)
    assert explained.maps.sum((2, 3)).abs().max() > 1e-2


def test_a_root_that_is_the_pool_itself_is_not_held(images):
    model = Net(lambda s, f: s.fc(f.square().mean((2, 3)).sqrt()), pools=False).eval()
    explained = gs.explain(model, images)
    assert explained.held == ()
    assert explained.completeness.max() < 3e-6  # of degree 1: complete, though not promised


@pytest.mark.parametrize("pool", slow_but(["attention", "min", "topk", "lp", "std"], "attention", "min"))
def test_every_pool_of_gapstones_that_adds_up(pool, images):
    own = {"attention": {"query": torch.randn(CHANNELS)}, "topk": {"k": 3}}.get(pool, {})
    model = Net(lambda s, f: s.fc(s.norm(f)), pools=False, norm=gs.Pool(pool, **own)).eval()
    explained = gs.explain(model, images)
    assert explained.additive
    assert explained.completeness.max() < 3e-6
    assert explained.held == (("the weights of attention",) if pool == "attention" else ())


@pytest.mark.parametrize(
    "pool",
    [
        lambda f: f.amin((2, 3)),
        lambda f: f.flatten(2).min(2).values,
        lambda f: f.flatten(2).max(-1)[0],
        lambda f: -F.adaptive_max_pool2d(-f, 1).flatten(1),
    ],
)
def test_extremes_in_all_spellings(pool, images):
    explained = gs.explain(Net(lambda s, f: s.fc(pool(f)), pools=False).eval(), images)
    assert explained.additive
    assert explained.completeness.max() < 3e-6
    assert int((explained.maps != 0).sum((2, 3)).max()) <= CHANNELS  # one position per channel


ENDS = {
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "sigmoid": torch.sigmoid,
    "log of softmax": lambda x: torch.softmax(x, 1).log(),
    "log_sigmoid": F.logsigmoid,
}


@pytest.mark.parametrize("name", ENDS)
def test_a_model_that_ends_in_softmax_is_explained_at_its_logits(name, images):
    torch.manual_seed(1)
    plain = Net(lambda s, v: s.fc(v)).eval()
    expected = gs.explain(plain, images)
    head, end = plain.head, ENDS[name]
    plain.head = lambda s, v: end(head(s, v))
    explained = gs.explain(plain, images)
    assert explained.end == name
    torch.testing.assert_close(explained.logits, expected.logits)
    torch.testing.assert_close(explained.maps, expected.maps)
    assert explained.additive
    gives = plain(images).detach()
    probable = gives.exp() if name.startswith("log") else gives
    torch.testing.assert_close(explained.probabilities, probable)


def test_a_softmax_over_the_images_is_no_end(images):
    explained = gs.explain(Net(lambda s, v: s.fc(v).softmax(0)).eval(), images)
    assert explained.end is None
    assert not explained.additive
