"""A class token's logit, taken apart among the patch tokens that enter the last block in which it hears of them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gapstone as gs
from gapstone.heads.attention_queries import AttentionQueries
from gapstone.tracing.locate_head import locate_head
from gapstone.tracing.tape import SplitError
from gapstone.tracing.token_head import TokenHead
from tests.marks import slow_but

CLASSES = 5
ATTENTION, GATES = "the weights of attention", "the gates of activations"


def alive(model: nn.Module) -> nn.Module:
    """With parameters so large that every part of the head counts: layer scales of 1e-5 hide what is wrong."""
    generator = torch.Generator().manual_seed(3)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) * (p.shape[-1] ** -0.5 if p.dim() > 1 else 0.5)
    return model.eval()


def timm_model(path: str, name: str, *given: object, **options: object) -> nn.Module:
    module = pytest.importorskip(f"timm.{path}", reason="needs timm: pip install 'gapstone[zoo]'")
    return getattr(module, name)(*given, num_classes=CLASSES, **options)


def vit(size: object = 32, **options: object) -> nn.Module:
    return timm_model("models.vision_transformer", "VisionTransformer", size, 8, embed_dim=16, depth=2, num_heads=2,
                      **options)  # fmt: skip


def vit_of_torchvision() -> nn.Module:
    torchvision = pytest.importorskip("torchvision", reason="needs torchvision: pip install 'gapstone[zoo]'")
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES)


def deit() -> nn.Module:
    return timm_model("models.deit", "VisionTransformerDistilled", 32, 8, embed_dim=16, depth=2, num_heads=2)


def cait() -> nn.Module:
    return timm_model("models.cait", "Cait", 32, 8, embed_dim=16, depth=1, num_heads=2)


def xcit() -> nn.Module:
    return timm_model("models.xcit", "Xcit", 32, 8, embed_dim=16, depth=1, num_heads=2, cls_attn_layers=2, eta=1.0)


def beit() -> nn.Module:
    return timm_model("models.beit", "Beit", 32, 8, embed_dim=16, depth=2, num_heads=2, global_pool="token",
                      use_rel_pos_bias=True, init_values=0.1)  # fmt: skip


def eva() -> nn.Module:
    return timm_model("models.eva", "Eva", 32, 8, embed_dim=16, depth=2, num_heads=2, global_pool="token",
                      swiglu_mlp=True, use_rot_pos_emb=True, num_reg_tokens=2)  # fmt: skip


def convit() -> nn.Module:
    return timm_model("models.convit", "ConVit", 32, 8, embed_dim=16, depth=2, num_heads=2, local_up_to_layer=1)


def tnt() -> nn.Module:
    return timm_model("models.tnt", "TNT", 32, 8, embed_dim=16, inner_dim=8, depth=2, num_heads_outer=2)


class WrittenOut(nn.Module):
    """A block as textbooks have it: softmax, a product, GELU by its tanh, and the norm by a root."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, 1, 16))
        self.qkv, self.up, self.down, self.fc = (nn.Linear(16, n) for n in (48, 32, 16, CLASSES))
        self.down = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, 16), x], 1)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + (q @ k.mT / 4).softmax(-1) @ v
        h = self.up(self.norm(x))
        x = x + self.down(0.5 * h * (1 + torch.tanh(0.8 * (h + 0.045 * h.pow(3)))))
        return self.fc(self.norm(x)[:, 0])

    def norm(self, x: Tensor) -> Tensor:
        u = x.mean(-1, keepdim=True)
        return (x - u) / ((x - u).square().mean(-1, keepdim=True) + 1e-6).sqrt()


FAMILIES = {
    "class token": (vit, 1),
    "registers": (lambda: vit(reg_tokens=3), 4),
    "attention pool": (lambda: vit(class_token=False, global_pool="map"), 0),
    "torchvision": (vit_of_torchvision, 1),
    "distilled": (deit, 2),
    "class attention": (cait, 0),
    "cross-covariance": (xcit, 1),
    "relative positions": (beit, 1),
    "gated units": (eva, 3),
    "gated positions": (convit, 1),
    "two streams": (tnt, 1),
    "written out": (WrittenOut, 1),
}
"""What makes it, and the tokens that stand before those of the positions where the map is."""


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", slow_but(FAMILIES, "class token", "distilled", "class attention", "written out"))
def test_the_parts_and_the_rest_are_the_logit(name, images):
    make, prefix = FAMILIES[name]
    model = alive(make())
    explained = gs.explain(model, images)
    scale = explained.logits.abs().max()
    torch.testing.assert_close(explained.logits, model(images).detach())
    assert explained.maps.shape == (3, CLASSES, 4, 4)
    assert explained.additive
    assert ATTENTION in explained.held
    assert explained.completeness.max() < 1e-5 * scale
    assert explained.maps.flatten(2).std(2).min() > 2e-4 * scale  # and not because all of it is called rest
    assert explained.bias.shape == (3, CLASSES)
    some = gs.explain(model, images, [4, 2])  # by a gradient for each class, not by one product for all
    torch.testing.assert_close(some.maps, explained.maps[:, [4, 2]], rtol=1e-4, atol=1e-5 * float(scale))
    torch.testing.assert_close(some.mean_map, explained.mean_map, rtol=1e-4, atol=1e-5 * float(scale))
    head, location = locate_head(model, images)
    assert isinstance(head, TokenHead)
    assert location.prefix == prefix
    assert head.lanes is not None
    lanes = head.lanes.parts(None), head.lanes.rest()
    head.lanes = None  # the same by a vector-Jacobian product through the whole block, which knows nothing of lanes
    torch.testing.assert_close(head.maps(None).flatten(2), lanes[0], rtol=1e-4, atol=1e-5 * float(scale))
    torch.testing.assert_close(head.bias(), lanes[1], rtol=1e-4, atol=1e-5 * float(scale))


def test_by_hand(images):
    model = alive(vit())
    block, attention = model.blocks[1], model.blocks[1].attn
    with torch.no_grad():
        x = model.blocks[0](model.norm_pre(model._pos_embed(model.patch_embed(images))))
        q, k, v = attention.qkv(block.norm1(x)).view(3, 17, 3, 2, 8).permute(2, 0, 3, 1, 4)
        weights = (q[:, :, :1] @ k.mT / 8**0.5).softmax(-1)[:, :, 0]  # (N, heads, tokens)
        own = v - attention.qkv(block.norm1.bias)[32:].view(1, 2, 1, 8)  # what is not the same for all
        heard = (weights[..., None] * own)[:, :, 1:].transpose(1, 2).flatten(2) @ attention.proj.weight.t()
        x = x[:, 0] + attention(block.norm1(x))[:, 0]

        def norm(layer: nn.LayerNorm, parts: Tensor, of: Tensor) -> Tensor:
            deviation = (of.var(-1, correction=0) + layer.eps).sqrt()[:, None, None]
            return (parts - parts.mean(-1, keepdim=True)) / deviation * layer.weight

        hidden = block.mlp.fc1(block.norm2(x))
        gates = (F.gelu(hidden) / hidden)[:, None]
        after = norm(block.norm2, heard, x) @ block.mlp.fc1.weight.t() * gates @ block.mlp.fc2.weight.t() + heard
        expected = norm(model.norm, after, x + block.mlp(block.norm2(x))) @ model.head.weight.t()
    maps = gs.explain(model, images).maps
    torch.testing.assert_close(maps.flatten(2).mT, expected, rtol=1e-4, atol=1e-5)


def test_cells_stand_where_their_patches_do():
    """A block that looks at each patch as it is: another patch moves its own cell alone, also where h ≠ w."""
    model = alive(vit((16, 48), weight_init="skip"))
    model.blocks = model.blocks[:1]
    model.blocks[0].attn.qkv.weight.data[:32] = 0  # all are heard alike
    model.blocks[0].attn.qkv.bias.data[:32] = 0
    images = torch.randn(2, 3, 16, 48, generator=torch.Generator().manual_seed(1))
    images[1] = images[0]
    images[1, :, 8:, 24:32] += 1
    with torch.no_grad():
        model.blocks[0].mlp.fc2.weight.zero_()
        model.norm.weight.zero_()  # its scale is each image's own: of both alike if there is none
    model.norm, model.blocks[0].norm2 = nn.Identity(), nn.Identity()
    explained = gs.explain(model, images)
    changed = (explained.maps[0] - explained.maps[1]).abs().sum(0)
    assert explained.maps.shape[2:] == (2, 6)
    assert changed.nonzero().tolist() == [[1, 3]]
    assert explained.placement.stride == (8, 8)
    assert explained.placement.start == (3.5, 3.5)


def test_contrasts_follow(images):
    explained = gs.explain(alive(vit()), images)
    scale = float(explained.logits.abs().max())
    pair = explained.contrast(1, 3)
    torch.testing.assert_close(pair.maps[:, 0], explained.maps[:, 1] - explained.maps[:, 3])
    assert pair.completeness.max() < 1e-5 * scale
    assert explained.centred().completeness.max() < 1e-5 * scale


def test_one_pass_after_the_first(images):
    model, calls = alive(vit()), []
    gs.explain(model, images)
    model.register_forward_hook(lambda *_: calls.append(1))
    gs.explain(model, images.flip(0), top_k=2)
    assert len(calls) == 1


def test_a_named_block_is_explained_through_all_that_follow(images):
    model = alive(vit())
    explained = gs.explain(model, images, at="patch_drop")
    assert explained.additive
    assert explained.completeness.max() < 1e-5 * explained.logits.abs().max()
    last = gs.explain(model, images, at="blocks.0")
    torch.testing.assert_close(last.maps, gs.explain(model, images).maps, rtol=1e-4, atol=1e-4)


def test_nothing_of_the_model_changes(images):
    model = alive(cait())
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        inside = gs.explain(model, images, top_k=2)
    outside = gs.explain(model, images, top_k=2)
    torch.testing.assert_close(inside.maps, outside.maps)
    torch.testing.assert_close(inside.mean_map, outside.mean_map)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(p.grad is not None for p in model.parameters())


def test_a_mean_before_the_patches_is_made_of_them(images):
    pytest.importorskip("timm", reason="needs timm: pip install 'gapstone[zoo]'")
    from timm.layers import AttentionPool2d

    model = alive(nn.Sequential(nn.Conv2d(3, 16, 8, 8), AttentionPool2d(16, 4, CLASSES, num_heads=2)))
    model[1].pos_embed.data.zero_()  # its part is a constant's, with weights that are each image's own
    explained = gs.explain(model, images)
    assert explained.additive
    # what the mean says is what the patches say, so nothing but constants is left
    torch.testing.assert_close(explained.bias, explained.bias[:1].expand(3, -1), rtol=1e-4, atol=1e-5)


def test_double_precision(images):
    explained = gs.explain(alive(vit()).double(), images.double())
    assert explained.completeness.max() < 1e-13 * explained.logits.abs().max()
    some = gs.explain(alive(vit()).double(), images.double(), top_k=2)
    assert some.completeness.max() < 1e-13 * explained.logits.abs().max()


class InPlace(WrittenOut):
    """What it reads is changed afterwards, in place."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, 16), x], 1)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x += (q @ k.mT / 4).softmax(-1) @ v
        x += self.down(F.relu_(self.up(self.norm(x))))
        return self.fc(self.norm(x)[:, 0])


class OutOfPlace(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, 16), x], 1)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + (q @ k.mT / 4).softmax(-1) @ v
        x = x + self.down(F.relu(self.up(self.norm(x))))
        return self.fc(self.norm(x)[:, 0])


def test_in_place_is_the_same(images):
    explained, expected = gs.explain(alive(InPlace()), images), gs.explain(alive(OutOfPlace()), images)
    assert explained.additive
    torch.testing.assert_close(explained.logits, expected.logits)
    torch.testing.assert_close(explained.maps, expected.maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(explained.bias, expected.bias, rtol=1e-4, atol=1e-5)


def test_hidden_layers_that_change_what_they_take(images):
    """A gate is that of what an activation took, not of what it left in its place."""
    model = vit()
    model.head = nn.Sequential(nn.Linear(16, 12), nn.ReLU(inplace=True), nn.Linear(12, CLASSES))
    explained = gs.explain(alive(model), images)
    model.head[1] = nn.ReLU()
    expected = gs.explain(model, images)
    assert explained.completeness.max() < 1e-5 * explained.logits.abs().max()
    torch.testing.assert_close(explained.maps, expected.maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(explained.bias, expected.bias, rtol=1e-4, atol=1e-5)


class Beside(nn.Module):
    """DINOv2's linear head: the class token beside the mean of the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.vit, self.fc = vit(reg_tokens=2), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.vit.forward_features(x)
        return self.fc(torch.cat([x[:, 0], x[:, 3:].mean(1)], 1))


def test_the_mean_beside_a_class_token_is_of_later_tokens(images):
    model = alive(Beside())
    explained = gs.explain(model, images)
    scale = float(explained.logits.abs().max())
    assert explained.additive
    assert explained.completeness.max() < 1e-5 * scale
    with torch.no_grad():
        of_mean = model.vit.forward_features(images)[:, 3:] @ model.fc.weight[:, 16:].t() / 16
        model.vit.head.weight.copy_(model.fc.weight[:, :16])
        model.vit.head.bias.copy_(model.fc.bias)
    of_token = gs.explain(model.vit, images)
    expected = of_token.maps.flatten(2) + of_mean.transpose(1, 2)
    torch.testing.assert_close(explained.maps.flatten(2), expected, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(explained.bias, of_token.bias, rtol=1e-4, atol=1e-5 * scale)
    some = gs.explain(model, images, top_k=2)
    assert some.completeness.max() < 1e-5 * scale
    head, _ = locate_head(model, images)
    assert isinstance(head, TokenHead)
    assert head.lanes is not None
    head.lanes = None
    torch.testing.assert_close(head.maps(None), explained.maps.flatten(2), rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(head.bias(), explained.bias, rtol=1e-4, atol=1e-5 * scale)


class Attended(nn.Module):
    """gapstone's attention pool over the patches of a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.vit, self.attention, self.fc = vit(), AttentionQueries(16, 2), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attention(self.vit.forward_features(x)[:, 1:].transpose(1, 2)))


@pytest.mark.parametrize("at", [None, "vit.blocks.0"])
def test_attention_by_einsum_is_held_as_any_other(at, images):
    model = alive(Attended())
    explained = gs.explain(model, images, at=at)
    assert explained.additive
    assert ATTENTION in explained.held
    assert explained.completeness.max() < 1e-5 * explained.logits.abs().max()
    torch.testing.assert_close(explained.logits, model(images).detach())


class Weighed(nn.Module):
    """A class token, and a learned weight for each token: the same for all images."""

    def __init__(self, left: bool) -> None:
        super().__init__()
        self.left, self.vit, self.weights = left, vit(), nn.Parameter(torch.randn(1, 17))

    def forward(self, x: Tensor) -> Tensor:
        x = self.vit.blocks(self.vit._pos_embed(self.vit.patch_embed(x)))
        heard = self.weights @ x if self.left else (x.transpose(1, 2) @ self.weights.t()).transpose(1, 2)
        return self.vit.head(self.vit.norm(x[:, :1] + heard)[:, 0])


@pytest.mark.parametrize("left", [True, False])
def test_learned_weights_of_tokens(left, images):
    explained = gs.explain(alive(Weighed(left)), images)
    assert explained.additive
    assert explained.completeness.max() < 1e-5 * explained.logits.abs().max()


class TokenBehind(nn.Module):
    """Tokens, and a class token behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, 1, 16))
        self.attention, self.fc = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([x, self.token.expand(len(x), 1, 16)], 1)
        return self.fc((x + self.attention(x, x, x, need_weights=False)[0])[:, -1])


def test_a_class_token_behind_the_patches_shifts_no_cell(images):
    model = alive(TokenBehind())
    explained = gs.explain(model, images)
    assert explained.completeness.max() < 1e-5 * explained.logits.abs().max()
    with torch.no_grad():  # the patches alone, before the token is put behind them
        x = model.patch(images).flatten(2).mT
        weights = model.attention(model.token.expand(3, 1, 16), *[torch.cat([x, model.token.expand(3, 1, 16)], 1)] * 2,
                                  average_attn_weights=False)[1][:, :, 0, :16]  # fmt: skip
        values = (x @ model.attention.in_proj_weight[32:].t()).view(3, 16, 2, 8).transpose(1, 2)
        heard = (weights[..., None] * values).transpose(1, 2).flatten(2) @ model.attention.out_proj.weight.t()
    torch.testing.assert_close(explained.maps.flatten(2).mT, heard @ model.fc.weight.t(), rtol=1e-4, atol=1e-5)


class TwoMaps(nn.Module):
    """CrossViT's way: two sets of tokens to the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = vit(), vit(), nn.Linear(2 * CLASSES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([self.a(x), self.b(x)], 1))


def test_two_sets_of_tokens_are_refused_with_what_to_do(images):
    with pytest.raises(SplitError, match=r"no one map.*several maps together.*name the module"):
        gs.explain(alive(TwoMaps()), images)


def test_a_pool_whose_query_is_made_of_learned_numbers():
    """timm's attention pool with layers on its query: no part of it is any position's, and all adds up."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_vit3", num_classes=5).eval()
    explained = gs.explain(model, torch.randn(2, 3, *model.default_cfg["input_size"][1:]))
    assert explained.additive
    assert explained.maps.shape[:2] == (2, 5)
    assert float(explained.completeness.max()) < 1e-5
    assert float(explained.maps.abs().sum((2, 3)).min()) > 1e-3 * float(explained.logits.abs().max())
