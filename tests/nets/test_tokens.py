"""Tokens that are no patches: found by watching, handed out when asked, pooled by nobody else."""

import pytest
import torch
from torch import nn

from gapstone.heads import BackboneOutput, Reads
from gapstone.nets import build
from gapstone.nets.prefix_tokens import prefix_tokens
from gapstone.nets.timm_survey import survey

timm = pytest.importorskip("timm")

CLASS, REGISTERS = "timm:test_vit", "timm:test_vit3"


def images(*size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


def features_of(name, **more):
    torch.manual_seed(0)
    return build(name, **more).eval()


class Tokens(nn.Module):
    """Patches of 8 px with tokens of its own beside them, in an order of its own; then attention."""

    def __init__(self, join) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16)
        self.cls, self.reg = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.zeros(1, 2, 16))
        self.positions = nn.Parameter(torch.zeros(1, 16, 16))
        self.mix = nn.Linear(16, 48)
        self.join = join

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        x = self.join(self.cls.expand(len(x), -1, -1), self.reg.expand(len(x), -1, -1), x, self.attend)
        return self.norm(x + self.attend(x))

    def attend(self, x, to=None):
        q, k, v = self.mix(x if to is None else torch.cat([x, to], 1)).chunk(3, -1)
        return nn.functional.scaled_dot_product_attention(q[:, : x.shape[1]], k, v)


def between(x, tokens):
    return torch.cat([x[:, :1], tokens, x[:, 1:]], 1)


P = None
ORDERS = {
    "first": (lambda cls, reg, x, _: torch.cat([cls, reg, x], 1), ("cls", "reg", "reg", *[P] * 16)),
    "last": (lambda cls, reg, x, _: torch.cat([x, reg, cls], 1), (*[P] * 16, "reg", "reg", "cls")),
    "registers later": (lambda cls, reg, x, _: between(torch.cat([cls, x], 1), reg), ("cls", "reg", "reg", *[P] * 16)),
    "asked at the end": (lambda cls, reg, x, attend: torch.cat([cls + attend(cls, x), x], 1), ("cls", *[P] * 16)),
    "taken away again": (lambda cls, reg, x, _: torch.cat([reg, x], 1)[:, 2:], ()),
    "split": (lambda cls, reg, x, _: torch.cat(torch.cat([reg, x], 1).split([1, 9, 8], 1)[::-1], 1),
              (*[P] * 8, "reg", *[P] * 8, "reg")),
    "none": (lambda cls, reg, x, _: x, ()),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_tokens_are_found_where_they_stand(order):
    join, expected = ORDERS[order]
    net = Tokens(join)
    assert prefix_tokens(net, net, images(32, 32)) == expected


def test_the_output_that_is_no_sequence_has_no_tokens():
    net = nn.Conv2d(3, 8, 3)
    assert prefix_tokens(net, net, images(32, 32)) == ()


# a class token; registers; none
FAMILIES = ["test_vit", "test_vit3", "test_vit_relpos"]
OTHERS = [
    "beit_base_patch16_224", "cait_xxs24_224", "convit_tiny", "deit3_small_patch16_224",
    "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224",
    "flexivit_small", "gmlp_ti16_224", "hiera_tiny_224", "mvitv2_small_cls", "mvitv2_tiny",
    "naflexvit_base_patch16_map", "naflexvit_base_patch16_siglip", "tnt_s_legacy_patch16_224",
    "twins_svt_small", "vit_base_patch16_siglip_224", "vit_betwixt_patch16_rope_reg4_gap_256",
    "vit_pe_core_tiny_patch16_384", "vit_relpos_medium_patch16_cls_224", "vit_relpos_small_patch16_224",
    "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_rope_224",
    "vit_so150m_patch16_reg4_map_256", "vit_tiny_patch16_224", "vit_tiny_patch16_dinov3_qkvb", "vit_tiny_r_s16_p8_224",
    "xcit_nano_12_p16_224",
]  # fmt: skip


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_timms_families_agree_with_their_own_attribute(name):
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=0).eval()
    assert len(survey(name, 3).prefix) == getattr(net, "num_prefix_tokens", 0)


def test_class_token_and_map_are_those_of_timm():
    features = features_of(CLASS)
    x = images(160, 160)
    with torch.no_grad():
        y, output = features.net.forward_features(x), features.read(x, Reads(class_token=True))
        assert torch.equal(output.class_token, y[:, 0])
        assert torch.equal(output.maps.flatten(2).transpose(1, 2), y[:, 1:])
        assert torch.equal(features(x), output.maps)
    assert features.prefix == ("cls_token",)


@pytest.mark.parametrize("name", [CLASS, REGISTERS])
def test_tokens_that_are_no_patches_change_nothing_that_is_pooled(name):
    """The last norm acts on each token by itself: other numbers in the tokens before the patches do not reach a map."""
    features = features_of(name)
    x, before = images(160, 160), len(features.prefix)
    with torch.no_grad():
        maps = features(x)
        other = 100 * torch.rand(2, before, features.channels)
        features.net.norm.register_forward_pre_hook(lambda _, given: torch.cat([other, given[0][:, before:]], 1))
        assert torch.equal(features(x), maps)


def test_registers_are_no_class_token():
    features = features_of(REGISTERS)
    assert features.prefix == ("reg_token",)
    with pytest.raises(ValueError, match="test_vit3 has no class token: what stands beside its patches is reg_token"):
        features.check_reads(Reads(class_token=True))


def test_last_layers_after_the_last_norm():
    """As in DINOv2's linear evaluation; the last of them is what there is without asking."""
    features = features_of(CLASS, pooler=True)
    x, made = images(160, 160), []
    for block in features.net.blocks:
        block.register_forward_hook(lambda _, __, out: made.append(out))
    with torch.no_grad():
        output = features.read(x, Reads(class_token=True, own=True, layers=3))
        expected = torch.cat([features.net.norm(y) for y in made[-3:]], 2)
        assert torch.equal(output.class_token, expected[:, 0])
        assert torch.equal(output.maps.flatten(2), expected[:, 1:].transpose(1, 2))
        one = features.read(x, Reads(class_token=True))
        assert torch.equal(output.part(Reads(), 64), one.maps)
        assert torch.equal(output.part(Reads(class_token=True), 64).class_token, one.class_token)
        assert torch.equal(features.read(x, Reads(layers=2)), output.maps[:, 64:])


@pytest.mark.parametrize("name", ["test_vit3", "test_vit", "test_resnet", "test_convnext"])
def test_the_own_pooler_is_timms_with_its_weights(name):
    """SigLIP's kind of attention pool; a class token; a mean; a norm after the mean."""
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=7).eval()
    features = build(f"timm:{name}", pooler=True).eval()
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    features.load_state_dict({key: state[key] for key in features.state_dict()})
    x = images(160, 160)
    with torch.no_grad():
        own = features.read(x, Reads(own=True)).own
        expected = net.forward_head(net.forward_features(x), pre_logits=True)
    assert own.shape[1] == features.own_width == features.width(Reads(own=True))
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    without = features_of(f"timm:{name}").state_dict()
    assert set(features.pooler) == set(features.state_dict()) - set(without)
    assert bool(features.pooler) == (name in ("test_vit3", "test_convnext"))


def test_what_a_network_does_not_have_is_refused_in_a_sentence():
    cnn, vit = features_of("timm:test_resnet"), features_of(CLASS)
    nin = build("nin")
    for features, reads, words in (
        (cnn, Reads(class_token=True), "timm:test_resnet has no class token: each of its cells is a patch"),
        (cnn, Reads(layers=2), "layers=2: timm:test_resnet has not so many layers that can stand side by side"),
        (vit, Reads(layers=99), "layers=99: timm:test_vit has not so many layers .*: it has 6"),
        (vit, Reads(own=True), "built without its own pooler"),
        (nin, Reads(class_token=True), "Nin has no class token"),
        (nin, Reads(layers=2), "layers=2: the maps of Nin's stages differ"),
        (nin, Reads(own=True), "own: Nin has no pooler of its own"),
    ):
        with pytest.raises(ValueError, match=words):
            features.check_reads(reads)
    with pytest.raises(ValueError, match="own: Nin has no pooler"):
        build("nin", pooler=True)


def test_any_size_and_at_its_own_the_same_to_the_bit():
    """Position embeddings as timm resamples them; images padded to whole patches."""
    torch.manual_seed(0)
    plain = timm.create_model("test_vit", num_classes=0).eval()
    features = build(CLASS).eval()
    features.load_state_dict({f"net.{key}": value for key, value in plain.state_dict().items()})
    assert features.fixed is None
    with torch.no_grad():
        y = plain.forward_features(images(160, 160))
        assert torch.equal(features(images(160, 160)).flatten(2), y[:, 1:].transpose(1, 2))
        for size, cells in (((120, 200), (8, 13)), ((17, 500), (2, 32)), ((1, 1), (1, 1))):
            output = features.read(images(*size), Reads(class_token=True, layers=2))
            assert isinstance(output, BackboneOutput)
            assert tuple(output.maps.shape[2:]) == cells
        padded = nn.functional.pad(images(120, 200), (0, 8, 0, 8))
        assert torch.equal(features(images(120, 200)), features(padded))


def test_the_last_stage_of_tokens_asks_for_the_size_of_the_images():
    features = features_of(CLASS)
    between = features.before_last(images(64, 160))
    assert torch.equal(features.last(between, (64, 160)), features(images(64, 160)))
    with pytest.raises(ValueError, match="from images of an unknown size"):
        features.last(between)
