"""Heads: the right answer, the right price, parts that add up, and a word about every wrong spec."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gapstone as gs
from gapstone.heads import RECIPES, BackboneOutput, Head, NotLinearError, Reads, parse, split_specs
from gapstone.heads.contributions import MEAN
from gapstone.heads.feature_norm import norm_of
from gapstone.maps.explain import explain_head

ADDITIVE = ["gap", "gmp", "gem", "gem:p=5", "gem:p=learned", "avgmax", "catavgmax", "nin", "nin:24", "nin:dropout=0.5",
            "fc", "fc:dropout=0.5", "fc:grid=4", "fc:grid=7", "gap:dropout=0.5", "attention", "catavgmax:norm=batch",
            "attention:queries=3"]  # fmt: skip
OTHERS = ["lse", "lse:dropout=0.5", "lse:r=2", "lse:r=learned", "fc:32", "fc:32,32:dropout=0.5",
          "gap:32:dropout=0.5", "gmp:16", "fc:8:grid=3"]  # fmt: skip


TOKENS = ["cls", "cls:8", "cls+gap", "own", "attention:cls=1", "attention:queries=2:cls=1"]
"""Heads that read more than maps."""


def make(spec, size=(6, 5)):
    torch.manual_seed(0)
    return gs.Head(spec, channels=16, classes=7, size=size).eval()


def maps(*size):
    return torch.rand(3, 16, *size, generator=torch.Generator().manual_seed(1))


def test_everyone_is_here():
    assert {spec.partition(":")[0] for spec in ADDITIVE + OTHERS + TOKENS} == set(RECIPES)


@pytest.mark.parametrize("spec", ADDITIVE)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_contributions_add_up_to_the_logit(spec, layout):
    head = make(spec)
    for parameter in head.parameters():  # a zero bias would hide that it is counted twice
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter)
    if norm := norm_of(head.classifier):
        norm.fix(torch.rand(32), 4 * torch.rand(32) + 0.1)
    x = maps(6, 5).to(memory_format=layout)
    parts = head.contributions(x)
    assert parts.maps.shape == (3, 7, 6, 5)
    torch.testing.assert_close(parts.maps.sum((2, 3)) + parts.bias, head(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", OTHERS)
def test_heads_whose_parts_do_not_add_up_say_so(spec):
    head = make(spec)
    assert not head.additive
    assert head(maps(6, 5)).shape == (3, 7)
    with pytest.raises(ValueError, match="hidden layers" if head.recipe.pools != ("logsumexp",) else "shares"):
        head.contributions(maps(6, 5))


def test_batch_norm_of_what_the_layers_read():
    head, x = make("gap:norm=batch:dropout=0.5"), torch.rand(64, 16, 3, 3)
    head.train()(x)
    read = norm_of(head.classifier)(head.vectors(x))
    torch.testing.assert_close(read.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(read.var(0, correction=0), torch.ones(16), atol=1e-2, rtol=0)
    norm_of(head.classifier).fix(torch.full((16,), 0.5), torch.full((16,), 0.25))
    for mode in (True, False):  # fixed in training, too
        norm = norm_of(head.train(mode).classifier)
        torch.testing.assert_close(norm(head.vectors(x)), (head.vectors(x) - 0.5) * 2, atol=1e-4, rtol=1e-4)
    assert count_parameters(head) == count_parameters(make("gap"))
    for wrong in ("gap:norm=1", "gap:norm=layer", "nin:norm=batch"):
        with pytest.raises(
            ValueError, match=r"norm=(1|layer) must be norm=batch|nin takes dropout=, layers=, not norm="
        ):
            make(wrong)


def count_parameters(head):
    return sum(parameter.numel() for parameter in head.parameters())


def test_contributions_sit_where_the_evidence_is():
    head = make("gap")
    x = torch.zeros(1, 16, 6, 5)
    x[0, :, 2, 3] = 1
    assert head.contributions(x).maps.abs().sum(1).flatten().argmax() == 2 * 5 + 3
    # one channel's evidence for one class is its weight over the number of positions
    x = torch.ones(1, 16, 6, 5)
    weight = head.classifier[-1].weight
    torch.testing.assert_close(head.contributions(x).maps[0, :, 0, 0], weight.sum(1) / 30)


def test_each_head_is_what_its_name_says():
    x = maps(6, 5)
    mean, most = x.mean((2, 3)), x.amax((2, 3))
    vectors = {"gap": mean, "gmp": most, "avgmax": (mean + most) / 2, "catavgmax": torch.cat([mean, most], 1),
               "fc": x.flatten(1), "fc:grid=4": F.adaptive_avg_pool2d(x, 4).flatten(1)}  # fmt: skip
    for spec, vector in vectors.items():
        head = make(spec)
        torch.testing.assert_close(head(x), head.classifier(vector), rtol=1e-5, atol=1e-6)
    nin = make("nin")
    torch.testing.assert_close(nin(x), F.relu(nin.maps[0](x)).mean((2, 3)))


def test_parameters_are_counted():
    count = {spec: sum(p.numel() for p in make(spec).parameters()) for spec in ADDITIVE + OTHERS}
    assert count["gap"] == count["gmp"] == count["nin"] == 16 * 7 + 7
    assert count["gem:p=learned"] == count["gem"] + 1
    assert count["catavgmax"] == 2 * 16 * 7 + 7
    assert count["fc"] == 16 * 30 * 7 + 7
    assert count["fc:grid=7"] == 16 * 49 * 7 + 7
    assert count["fc:32,32:dropout=0.5"] == (16 * 30 * 32 + 32) + (32 * 32 + 32) + (32 * 7 + 7)
    flat = gs.Head("fc:500", channels=64, classes=10, size=(7, 7))
    assert flat.classifier[0].weight.numel() == 1_568_000  # design: a 7×7×64 map flattened into 500 units
    lab = gs.Head("fc:256", channels=64, classes=10, size=(8, 8))
    assert sum(p.numel() for p in lab.parameters()) == 1_051_402


@pytest.mark.parametrize("spec", [s for s in ADDITIVE + OTHERS if not s.startswith("fc") or "grid" in s])
def test_any_size_is_taken(spec):
    head = make(spec, size=None)
    for size in ((1, 1), (3, 9), (13, 13)):
        assert head(maps(*size)).shape == (3, 7)


def test_a_flattening_head_names_its_size():
    with pytest.raises(ValueError, match=r"6×5 feature maps and got 7×7.*fc:grid"):
        make("fc")(maps(7, 7))
    with pytest.raises(ValueError, match="size="):
        gs.Head("fc", 16, 7)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 16, h, w\)"):
        make("gap")(torch.rand(1, 3, 4, 4))


def test_dropout_only_in_training():
    head = make("fc:dropout=0.5")
    x = maps(6, 5)
    assert torch.equal(head(x), head(x))
    head.train()
    assert not torch.equal(head(x), head(x))


def test_spec_text_round_trips():
    for spec in ADDITIVE + OTHERS + TOKENS:
        assert str(parse(spec)) == spec
        assert make(spec).spec == spec
    assert str(parse("gem:p=3.14159265")) == "gem:p=3.14159265"
    assert str(parse("gap:dropout=0")) == "gap"
    assert split_specs("gap, fc:512,512:dropout=0.5,nin") == ["gap", "fc:512,512:dropout=0.5", "nin"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("gapp", "Did you mean 'gap'"),
        ("fc:0", "hidden width"),
        ("fc:12x", "hidden width"),
        ("fc:99999999999", "hidden width"),
        ("fc:grid=2.5", "whole number"),
        ("gap:p=3", "takes dropout=, norm=, layers=, not p="),
        ("own:layers=2", "own takes dropout=, norm=, not layers="),
        ("gap:layers=0", "whole number from 1"),
        ("attention:queries=65", "whole number from 1 to 64"),
        ("fc:512:512", "neither"),
        ("gem:p=-1", "or 'learned'"),
        ("gem:p=nan", "or 'learned'"),
        ("gap:dropout=1", "0 to 0.95"),
        ("gap:dropout=0.1:dropout=0.2", "twice"),
        ("", "not known"),
    ],
)
def test_wrong_specs(spec, says):
    with pytest.raises(ValueError, match=says):
        gs.Head(spec, 16, 7, (6, 5))


class Lora(nn.Module):
    """As peft wraps a linear layer: no nn.Linear, and its weight is not all of it."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base_layer, self.in_features, self.out_features = base, base.in_features, base.out_features
        self.drop = nn.Dropout(0.5)
        self.a, self.b = nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + 0.5 * self.b(self.a(self.drop(x)))


@pytest.mark.parametrize("spec", ["gap", "catavgmax", "avgmax", "fc", "gem"])
@pytest.mark.parametrize("last", ["no bias", "wrapped", "weight norm"])
def test_another_last_layer_has_contributions(spec, last):
    head = Head(spec, 6, 4, (3, 5))
    layer = head.classifier[-1]
    if last == "no bias":
        layer.bias = None
    else:
        head.classifier[-1] = Lora(layer) if last == "wrapped" else nn.utils.parametrizations.weight_norm(layer)
    x = torch.rand(2, 6, 3, 5)
    found = head.train().contributions(x)
    assert head.classifier[-1].training
    torch.testing.assert_close(found.maps.sum((2, 3)) + found.bias, head.eval()(x), rtol=1e-4, atol=1e-5)
    own = head.contributions(x, torch.tensor([[0], [3]]))
    torch.testing.assert_close(own.maps[:, 0], found.maps[torch.arange(2), torch.tensor([0, 3])])


def test_a_last_layer_that_is_not_linear_is_said_and_explained_by_gradients():
    head = Head("gap", 6, 4)
    head.classifier[-1] = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4)).eval()
    with pytest.raises(NotLinearError, match="has a Sequential for its last layer, which is not linear"):
        head.contributions(torch.rand(2, 6, 3, 5))
    explained = explain_head(head, torch.rand(2, 6, 3, 5))
    assert not explained.additive
    assert explained.maps.abs().max() > 0


# --- heads that read a class token, the own pooler or several layers


def output(layers=1):
    made = torch.Generator().manual_seed(2)
    return BackboneOutput(
        *(torch.randn(3, *shape, generator=made) for shape in ((16 * layers, 6, 5), (16 * layers,), (16,)))
    )


def test_heads_of_tokens_are_what_their_names_say():
    given = output()
    mean = given.maps.mean((2, 3))
    vectors = {"cls": given.class_token, "cls+gap": torch.cat([given.class_token, mean], 1), "own": given.own}
    for spec, vector in vectors.items():
        head = make(spec, size=None)
        torch.testing.assert_close(head(given), head.classifier(vector))


@pytest.mark.parametrize("spec", ["attention:queries=3", "attention:queries=3:cls=1"])
def test_attention_is_the_pool_of_that_name_for_each_query(spec):
    head, given = make(spec), output()
    (pool,) = head.pools
    for query in pool.queries:
        torch.nn.init.normal_(query)  # far from the mean
    positions = given.tokens if "cls" in spec else given.maps
    answers = [gs.pool(positions, "attention", query=query.detach()) for query in pool.queries]
    torch.testing.assert_close(head.vectors(given), torch.cat(answers, 1), rtol=1e-5, atol=1e-5)
    if "cls" in spec:
        assert torch.equal(head(given.tokens), head(given))  # as it is trained on stored tokens


@pytest.mark.parametrize("layers", [1, 2])
def test_a_class_token_that_is_listened_to_is_part_of_the_bias(layers):
    head, given = make(f"attention:queries=2:cls=1:layers={layers}"), output(layers)
    for query in head.pools[0].queries:
        torch.nn.init.normal_(query)
    parts = head.contributions(given)
    assert parts.maps.shape == (3, 7, 6, 5)
    torch.testing.assert_close(parts.maps.sum((2, 3)) + parts.bias, head(given), rtol=1e-5, atol=1e-5)
    heard = head.pools[0].weights(given.tokens)[:, :, 0]  # by hand: what the token says, as often as it is heard
    own = (heard[:, :, None] * given.class_token[:, None]).flatten(1)
    torch.testing.assert_close(parts.bias, head.classifier(own), rtol=1e-5, atol=1e-5)
    some = head.contributions(given, torch.tensor([[2, MEAN], [0, 1], [6, 6]]))
    torch.testing.assert_close(some.maps[0, 0], parts.maps[0, 2])
    torch.testing.assert_close(some.maps[0, 1], parts.maps[0].mean(0))
    torch.testing.assert_close(some.bias, parts.bias)
    explained = explain_head(head, given)
    assert torch.equal(explained.maps, parts.maps)
    assert explained.additive
    assert explained.held == parts.held == ("the weights of attention", "what the first token brings")
    with pytest.raises(ValueError, match=r"tokens \(3, \d+, 31\), which do not say where they lie"):
        head.contributions(given.tokens)


def test_hidden_layers_behind_attention_at_a_class_token():
    given = output()
    explained = explain_head(make("attention:8:cls=1"), given)
    assert explained.maps.shape == (3, 7, 6, 5)
    assert not explained.additive
    assert torch.equal(explained.logits, make("attention:8:cls=1")(given))


def test_new_attention_is_close_to_the_mean_and_its_queries_differ():
    pool = make("attention:queries=2").pools[0]
    weights = pool.weights(output().maps)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 30), rtol=0.5, atol=0)
    assert not torch.equal(weights[:, 0], weights[:, 1])


def test_layers_stand_side_by_side():
    """The last one last; a head of one layer reads the end of what a head of several does."""
    given = output(layers=3)
    head = make("cls+gap:layers=3", size=None)
    assert head.depth == 48
    expected = torch.cat([given.class_token, given.maps.mean((2, 3))], 1)
    torch.testing.assert_close(head.vectors(given), expected)
    for spec in ("gap:layers=2", "nin:layers=2", "attention:layers=2", "fc:grid=2:layers=2"):
        maps = given.part(parse(spec).reads, 16)
        assert torch.equal(maps, given.maps[:, 16:])
        deep = make(spec, size=None)
        parts = deep.contributions(maps)
        torch.testing.assert_close(parts.maps.sum((2, 3)) + parts.bias, deep(maps), rtol=1e-5, atol=1e-5)


def test_what_a_head_reads():
    assert parse("gap").reads == Reads()
    assert parse("gap:layers=4").reads == Reads(layers=4)
    assert parse("cls").reads == Reads(maps=False, class_token=True)
    assert parse("cls+gap:layers=2").reads == Reads(class_token=True, layers=2)
    assert parse("attention:cls=1").reads == Reads(class_token=True)
    assert str(parse("attention:cls=0:queries=1:layers=1")) == "attention"
    assert parse("own").reads == Reads(maps=False, own=True)
    assert parse("gap").reads | parse("cls:layers=2").reads == Reads(class_token=True, layers=2)


@pytest.mark.parametrize("spec", TOKENS)
def test_heads_of_tokens_refuse_maps_alone(spec):
    head, given = make(spec), output()
    assert head(given).shape == (3, 7)
    assert head.additive == head.attends_to_class_token
    with pytest.raises(ValueError, match=rf"head '{re.escape(spec)}' reads the .*not maps alone.*features\.read"):
        head(given.maps)
    with pytest.raises(ValueError, match="not maps alone" if head.additive else "no contributions"):
        head.contributions(given.maps)
    with pytest.raises(ValueError, match=r"\(N, 16\), and got None"):
        head(BackboneOutput(given.maps))
