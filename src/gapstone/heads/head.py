"""Head: feature maps to logits, and the part each position has in them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.heads.attention_queries import AttentionQueries
from gapstone.heads.contributions import ATTENTION, MEAN, first_tokens, in_place, of_classes, pooled
from gapstone.heads.feature_norm import FeatureNorm, norm_of
from gapstone.heads.own_heads import made_by_user
from gapstone.heads.reads import BackboneOutput
from gapstone.heads.spec import parse
from gapstone.pooling import Pool
from gapstone.pools import POOLS
from gapstone.pools.name_types import Merging
from gapstone.regions import Grid
from gapstone.regions.region import per_axis
from gapstone.runtime.eval_mode import eval_mode
from gapstone.runtime.torch_internals import tracing


@dataclass(frozen=True)
class Contributions:
    """What each position adds to each class's logit: `maps.sum(positions) + bias == logits`."""

    maps: Tensor
    """(N, K, *spatial), signed, in logit units."""
    bias: Tensor
    """(K,), what no position adds; (N, K) where a class token among the positions adds its own in each image."""
    held: tuple[str, ...] = ()
    """What counts as a number of the image: the weights of attention, what the class token brings."""


class Head(nn.Module):
    """A pool and a classifier: feature maps (N, C, *spatial) to logits (N, K).

    Examples:
        >>> head = gs.Head("gap", channels=512, classes=10)
        >>> head(torch.rand(2, 512, 7, 7)).shape
        torch.Size([2, 10])
        >>> gs.Head("fc:512:dropout=0.5", channels=64, classes=10, size=(8, 8)).additive
        False

    `additive` says whether `contributions` exist: no hidden layers, and pools whose shares add up (all but `lse`).
    `nin` always has them: its class maps *are* the contributions, and its ReLU (as in arXiv 1312.4400, eq. 2) makes
    every one of them evidence in favour. Of attention the weights are held, and a class token among what it looks at
    is part of the bias. Heads that answer from a class token or the backbone's own pooler have none: that is no
    position of the map. `reads` says what a head reads, and `features.read(images, head.reads)` gives it.

    Args:
        spec: `gap`, `gmp`, `gem`, `lse`, `avgmax`, `catavgmax`, `attention` (pool, then linear), `nin` (one map per
            class, then mean), `fc` (flatten, then linear), `cls` (class token, then linear), `cls+gap` (side by side)
            or `own` (the backbone's own pooler); then hidden widths (`gap:512,512`), then options: `dropout=0.5`,
            `p=4` or `p=learned` (gem), `r=5` or `r=learned` (lse), `grid=7` (fc: maps pooled to 7×7 first, so that any
            size is taken), `queries=8` (attention: so many answers side by side), `cls=1` (attention: the class token
            is among what it looks at), `layers=4` (the last 4 layers of a ViT side by side; not own), `norm=batch`
            (batch norm of the pooled vector; not nin).
            Hidden layers are linear, ReLU, dropout. Without hidden layers dropout acts on what the linear layer sees.
        channels: of the feature maps, of one layer; for `own`, of the pooler's vector.
        classes: how many logits.
        size: of the feature maps, (h, w); only `fc` without `grid` needs it.
    """

    def __init__(self, spec: str, channels: int, classes: int, size: tuple[int, ...] | None = None) -> None:
        super().__init__()
        parsed = parse(spec)
        recipe = parsed.recipe
        if channels < 1 or classes < 1:
            raise ValueError(f"head {spec!r} of {channels} channels and {classes} classes: both must be at least 1.")
        self.spec, self.channels, self.classes = str(parsed), channels, classes
        self.recipe, self.reads = recipe, parsed.reads
        self.depth = depth = channels * self.reads.layers
        self.size: tuple[int, ...] | None = None
        self.maps: nn.Sequential | None = None
        self.classifier: nn.Sequential | None = None
        self.module: nn.Module | None = None  # a head of the user's own: all there is of this one
        if recipe.module is not None:
            self.pools, self.additive = nn.ModuleList(), False
            self.module, self.size = made_by_user(self.spec, recipe.module, depth, classes, size)
            return
        dropout = parsed.number("dropout", 0.0)

        queries = int(parsed.number("queries", 1))
        pools: list[nn.Module]
        if recipe.pools == ("attention",):
            pools = [AttentionQueries(depth, queries)]
        else:
            pools = [_pool(name, parsed.options) for name in recipe.pools]
        width = depth * ((len(pools) * queries if recipe.join == "cat" else 1) + recipe.class_token)
        if recipe.own:
            width = channels
        elif not recipe.pools and not recipe.class_token:
            if "grid" in parsed.options:
                grid = int(parsed.number("grid", 0))
                pools, width = [Pool("mean", over=Grid(grid))], depth * grid * grid
            elif size is None:
                raise ValueError(
                    f"head {spec!r} flattens the maps and must know their size: give size=(h, w), "
                    f"or take {parsed.name}:grid=7, which accepts any size."
                )
            else:
                self.size = tuple(size)
                width = depth * torch.Size(size).numel()
        self.pools = nn.ModuleList(pools)
        if recipe.maps:
            self.maps = _convolutions(depth, parsed.hidden, classes, dropout)
        else:
            self.classifier = _linear(width, parsed.hidden, classes, dropout, parsed.normed)
        adds_up = recipe.maps or (not parsed.hidden and all(POOLS[name].adds_up for name in recipe.pools))
        self.additive = (self.reads.maps_alone or self.attends_to_class_token) and adds_up

    def forward(self, x: Tensor | BackboneOutput) -> Tensor:
        """The logits (N, K) of feature maps (N, C, *spatial), or of what else `reads` names."""
        if not isinstance(x, Tensor | BackboneOutput) or tracing():
            return self._forward(x)  # written down, for maps of which nothing is known here
        self.check(x)
        return self._forward(x)

    def _forward(self, x: Tensor | BackboneOutput) -> Tensor:
        if self.module is not None:
            logits: Tensor = self.module(x)
            return logits
        if self.maps is not None:
            x = self.maps(x)
        joined = self.vectors(x)
        return joined if self.classifier is None else self.classifier(joined)

    def vectors(self, x: Tensor | BackboneOutput) -> Tensor:
        """The pooled maps and other vectors, which `classifier` reads.

        Examples:
            >>> gs.Head("catavgmax", channels=512, classes=10).vectors(torch.rand(2, 512, 7, 7)).shape
            torch.Size([2, 1024])

        Args:
            x: feature maps, (N, C, *spatial), of a size that this head takes; or what else `reads` names.

        Returns:
            Vectors (N, D).
        """
        if self.module is not None:
            raise ValueError(f"head {self.spec!r} is your own: which vectors its layers read is not known.")
        maps, token, own = (x.maps, x.class_token, x.own) if isinstance(x, BackboneOutput) else (x, None, None)
        if own is not None and self.reads.own:
            return own
        if token is not None and self.recipe.class_token:
            return torch.cat([token, *(pool(maps).flatten(1) for pool in self.pools)], 1)
        if isinstance(x, BackboneOutput) and token is not None and self.reads.class_token:
            maps = x.tokens
        pooled = [pool(maps).flatten(1) for pool in self.pools] or [maps.flatten(1)]
        return torch.cat(pooled, 1) if self.recipe.join == "cat" else torch.stack(pooled).mean(0)

    def contributions(self, x: Tensor | BackboneOutput, classes: Tensor | None = None) -> Contributions:
        """Each position's part in each logit, exactly; as in eval mode, from one look at the maps and no gradient.

        Examples:
            >>> head, x = gs.Head("gap", channels=512, classes=10), torch.rand(2, 512, 7, 7)
            >>> parts = head.contributions(x)
            >>> parts.maps.shape
            torch.Size([2, 10, 7, 7])
            >>> torch.allclose(parts.maps.sum((2, 3)) + parts.bias, head(x), atol=1e-5)
            True

        The last layer may be wrapped (LoRA) or have no bias, as long as it is linear.

        Args:
            x: feature maps, (N, C, *spatial); with the class token beside them where attention looks at it, too.
            classes: (N, k), whole numbers: only these maps, (N, k, *spatial), −1 for that of the mean logit; None: all.

        Returns:
            Maps (N, K, *spatial) and bias (K,), or (N, K); float32 or wider.

        Raises:
            ValueError: the parts do not add up to the logit.
        """
        if not self.additive:
            why = "it has hidden layers" if parse(self.spec).hidden else "its pool's shares are weights"
            why = (
                "it is your own; gs.explain(model, images) gives gradient × activation"
                if self.module is not None
                else why
            )
            if not (self.reads.maps_alone or self.attends_to_class_token):
                why = f"it reads {self.reads.what}, which is no position of the map"
            raise ValueError(f"head {self.spec!r} has no contributions that add up to the logit: {why}.")
        self.check(x)
        if isinstance(x, BackboneOutput):
            if self.attends_to_class_token:
                return self._beside_class_token(x, classes)
            x = x.maps
        elif self.attends_to_class_token:
            raise ValueError(
                f"head {self.spec!r} got tokens {tuple(x.shape)}, which do not say where they lie: give it what "
                f"features.read(images, head.reads) returns."
            )
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if self.maps is not None:
            layers = [layer for layer in self.maps if not isinstance(layer, nn.Dropout)]
            maps = nn.Sequential(*layers)(x)
            if classes is not None:
                rows = torch.arange(len(maps), device=maps.device)[:, None]
                mean = maps.mean(1, keepdim=True)
                maps = (
                    torch.cat([maps, mean], 1)[rows, classes] if bool((classes == MEAN).any()) else maps[rows, classes]
                )
            return Contributions(maps / maps[0, 0].numel(), maps.new_zeros(self.classes))
        assert self.classifier is not None
        weight, bias = (part.to(x.dtype) for part in affine(self.classifier[-1], f"head {self.spec!r}"))
        if (norm := norm_of(self.classifier)) is not None:
            weight, bias = norm.into(weight, bias)
        if classes is not None:
            weight = of_classes(weight, classes)
        if len(self.pools) and isinstance(attention := self.pools[0], AttentionQueries):
            return Contributions(attention.parts(x, weight), bias, (ATTENTION,))
        pools = [layer for layer in self.pools if isinstance(layer, Pool)]
        if not self.recipe.pools:
            over = pools[0].over if pools else None
            grid = per_axis(over.size, x.dim() - 2, "Grid") if isinstance(over, Grid) else tuple(x.shape[2:])
            return Contributions(in_place(x, weight.view(*weight.shape[:-1], self.depth, *grid), bool(pools)), bias)
        mean = (weight / len(pools),) * len(pools)
        weights = weight.chunk(len(pools), -1) if self.recipe.join == "cat" else mean
        parts = [
            pooled(x, w, str(layer.name), **layer.parameters_of_pool()) for w, layer in zip(weights, pools, strict=True)
        ]
        return Contributions(parts[0] if len(parts) == 1 else torch.stack(parts).sum(0), bias)

    def _beside_class_token(self, output: BackboneOutput, classes: Tensor | None) -> Contributions:
        """Of attention that looks at the class token, too: what that says is no position's."""
        x, attention = output.float().tokens, self.pools[0]
        assert isinstance(attention, AttentionQueries)
        assert self.classifier is not None
        weight, bias = (part.to(x.dtype) for part in affine(self.classifier[-1], f"head {self.spec!r}"))
        own = attention.of_first(x) @ weight.t()
        parts = attention.parts(x, weight if classes is None else of_classes(weight, classes))
        maps = parts[:, :, 1:].reshape(*parts.shape[:2], *output.maps.shape[2:])
        return Contributions(maps, bias + own, (ATTENTION, first_tokens(1)))

    def check(self, x: Tensor | BackboneOutput) -> None:
        """Check that these are maps for this head.

        Args:
            x: feature maps, (N, C, *spatial); or what else `reads` names.

        Raises:
            ValueError: other channels, a size that it does not take, or maps alone for a head that reads more.
        """
        if isinstance(x, BackboneOutput):
            self._check_output(x)
            x = x.maps
            if self.reads.own:
                return
        elif self.attends_to_class_token and x.dim() == 3 and x.shape[1] == self.depth:
            return  # `BackboneOutput.tokens`
        elif not self.reads.maps_alone:
            raise ValueError(
                f"head {self.spec!r} reads {self.reads.what}, not maps alone: give it what "
                f"features.read(images, head.reads) returns, as gs.Classifier does."
            )
        if x.dim() < 3 or x.shape[1] != self.depth:
            raise ValueError(
                f"head {self.spec!r} takes feature maps (N, {self.depth}, h, w), not a tensor of {tuple(x.shape)}."
            )
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            expected, actual = ("×".join(map(str, s)) for s in (self.size, x.shape[2:]))
            raise ValueError(
                f"head {self.spec!r} was made for {expected} feature maps and got {actual}: give it images of that "
                f"size, or take fc:grid={self.size[0]} or gap, which accept any size."
            )

    @property
    def attends_to_class_token(self) -> bool:
        """Whether the class token is one of the positions that its pool looks at."""
        return self.reads.class_token and not self.recipe.class_token

    def _check_output(self, x: BackboneOutput) -> None:
        for wanted, given, width in (
            (self.reads.class_token, x.class_token, self.depth),
            (self.reads.own, x.own, self.channels),
        ):
            if wanted and (given is None or tuple(given.shape[1:]) != (width,)):
                shape = None if given is None else tuple(given.shape)
                raise ValueError(f"head {self.spec!r} reads {self.reads.what}, (N, {width}), and got {shape}.")

    def extra_repr(self) -> str:
        return f"{self.spec!r}, channels={self.channels}, classes={self.classes}" + (
            f", size={self.size}" if self.size else ""
        )


class NotLinearError(ValueError):
    """The last layer of a head was exchanged for one that is not linear."""


def affine(layer: nn.Module, whose: str) -> tuple[Tensor, Tensor]:
    """(weight, bias) of a linear layer, also of one that another library has wrapped: LoRA, or one without a bias.

    A foreign layer is asked: its answer to 0 is the bias, and its answers to unit vectors are the weight. Raises:
    NotLinearError where it is not linear.
    """
    if type(layer) is nn.Linear:
        weight = layer.weight
        return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
    first = next(layer.parameters(), None)
    like = torch.empty(0) if first is None else first
    width = getattr(layer, "in_features", None) or (like.shape[-1] if like.dim() == 2 else None)
    if not isinstance(width, int):
        raise NotLinearError(
            f"{whose} has a {type(layer).__name__} for its last layer, which does not say how wide it is (in_features)"
        )

    def ask(x: Tensor) -> Tensor:
        output: Tensor = layer(x.to(like))
        return output

    with eval_mode(layer), torch.no_grad():
        nothing = ask(torch.zeros(1, width))
        rows = [ask(torch.eye(width)[i : i + UNITS]) - nothing for i in range(0, width, UNITS)]
        weight, bias = torch.cat(rows).t(), nothing[0]
        probe = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
        expected, actual = probe.to(like) @ weight.t() + bias, ask(probe)
    if not torch.allclose(actual, expected, rtol=1e-2, atol=1e-2 * float(actual.abs().max())):
        raise NotLinearError(
            f"{whose} has a {type(layer).__name__} for its last layer, which is not linear, so its parts do not add up "
            f"to the logit; gs.explain(model, images) gives gradient × activation"
        )
    return weight, bias


UNITS = 1024
"""Unit vectors that a layer is given at a time."""


def _pool(name: Merging, options: dict[str, float | str]) -> Pool:
    """The pool with the options that are its parameters; "learned" begins at the pool's default."""
    parameters: dict[str, Any] = {key: options[key] for key in POOLS[name].parameters if key in options}
    for key, value in parameters.items():
        if value == "learned":
            return Pool(name, learn=True, **{k: v for k, v in parameters.items() if k != key})
    return Pool(name, **parameters)


def _linear(width: int, hidden: tuple[int, ...], classes: int, dropout: float, normed: bool) -> nn.Sequential:
    drop = [nn.Dropout(dropout)] if dropout else []
    layers: list[nn.Module] = [FeatureNorm(width)] if normed else []
    layers += [] if hidden else drop
    for wide in hidden:
        layers += [nn.Linear(width, wide), nn.ReLU(inplace=True), *([nn.Dropout(dropout)] if dropout else [])]
        width = wide
    return nn.Sequential(*layers, nn.Linear(width, classes))


def _convolutions(channels: int, hidden: tuple[int, ...], classes: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    for wide in (*hidden, classes):
        convolution = nn.Conv2d(channels, wide, 1)
        assert convolution.bias is not None
        nn.init.ones_(convolution.bias)  # begins where the ReLU has a slope: else classes die, docs/decisions/0002
        layers += [convolution, nn.ReLU(inplace=True)]
        channels = wide
    return nn.Sequential(*layers)
