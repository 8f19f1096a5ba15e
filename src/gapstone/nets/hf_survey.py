"""What a dry run tells about a network of transformers: its map, tokens, layers, own pooler, and the sizes it takes."""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import torch
from torch import Tensor, nn

from gapstone.console.formatting import first_line
from gapstone.nets.hf_model import create_hf, own_size, resamples, run_at_any_size
from gapstone.nets.last_stage import last_stage
from gapstone.nets.on_meta import on_meta, shapes_alone
from gapstone.nets.timm_survey import prefix_before_patches, single_cell, smallest_side, stride_of, unused_modules
from gapstone.tracing.torch_calls import name_of
from gapstone.tracing.trace import Arguments, Function, Keywords, Tracer

Size = tuple[int, int]

CHANCE = ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "multinomial", "bernoulli")


@final
class TokensOnGrid(nn.Module):
    """The last hidden state as a map (N, C, h, w); maps stay as they are.

    prefix: how many tokens, none of a patch, stand before those of the patches; they are left out. stride: pixels from
    one patch to the next; None: of the proportions of the image, which `fixed` gives.
    """

    def __init__(self, who: str, prefix: int = 0, stride: int | None = None, fixed: Size | None = None) -> None:
        super().__init__()
        self.who, self.prefix, self.stride, self.fixed = who, prefix, stride, fixed

    def forward(self, y: Any, size: Size | None = None) -> Tensor:
        if isinstance(y, Tensor) and y.ndim == 4:
            return y
        size = size or self.fixed
        if isinstance(y, Tensor) and y.ndim == 3 and size is not None:
            return self.on_grid(y[:, self.prefix :], size)
        what = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise ValueError(f"{self.who} makes no feature map, but {what}: take another network")

    def on_grid(self, patches: Tensor, size: Size) -> Tensor:
        """Patches (N, cells, C) as a map."""
        cells = int(patches.shape[1])
        if self.stride is None:
            h = round(math.sqrt(cells * size[0] / size[1]))
            grids = [(h, cells // max(h, 1))]
        else:  # the border that is no whole patch is left out (ViT), or padded (Swin)
            grids = [
                (size[0] // self.stride, size[1] // self.stride),
                (-(-size[0] // self.stride), -(-size[1] // self.stride)),
            ]
        for h, w in grids:
            if h * w == cells > 0:
                return patches.transpose(1, 2).reshape(patches.shape[0], patches.shape[2], h, w)
        raise ValueError(
            f"{self.who} makes no feature map: of images of {size[0]}×{size[1]} px it has {cells} tokens, not one for "
            f"each cell of a grid; take another network"
        )


@dataclass(frozen=True)
class HfSurvey:
    """As `timm_survey.Survey`, of a network of transformers."""

    channels: int
    stride: int
    smallest: int
    fixed: Size | None
    prefix: tuple[str, ...]
    unused: tuple[str, ...]
    """Modules the maps do not need."""
    last_stage: tuple[str, ...]
    own_width: int | None
    """Of the vector of its own pooler; None where it has none."""
    unused_by_own: tuple[str, ...]
    """Modules that neither the map nor its own pooler needs."""
    blocks: tuple[str, ...]
    """The layers whose tokens can stand side by side, in order; () where there are no two."""
    norm: str | None
    """What stands between the last of them and the last hidden state."""


@cache
@torch.inference_mode(False)  # whoever asks: what the maps depend on is found through autograd
def survey_hf(text: str, who: str) -> HfSurvey:
    """Run the network that a configuration describes on shapes alone. Raises ValueError where it makes no map."""
    with on_meta():
        net = create_hf(text, who).eval()
    _check_order(net, who)
    size = own_size(net)
    images = torch.empty(1, channels_of(net), *size, device="meta")
    ask = Asked(net)
    y = _first_look(ask, images, who)
    tokens = y.ndim == 3
    prefix = prefix_before_patches(who, net, lambda x: ask(x)[0], images) if tokens else ()
    as_map = TokensOnGrid(who, len(prefix))

    def cells(h: int, w: int) -> Size:
        with torch.no_grad(), shapes_alone():
            maps = as_map(ask(images.new_empty(1, images.shape[1], h, w))[0], (h, w))
        return int(maps.shape[2]), int(maps.shape[3])

    default = cells(*size)
    if tokens and default == (1, 1):
        raise single_cell(who, size)
    fixed, smallest, state = None, size[0], _state(net)
    try:
        stride = stride_of(cells, size, default)
        as_map = TokensOnGrid(who, len(prefix), stride)
        cells(size[0] + 448, size[1] + 224)  # of other proportions, too
        smallest = smallest_side(cells, size[0], stride)
        if _state(net) != state:
            with on_meta():
                net = create_hf(text, who).eval()
            raise ValueError("an image of another size changes what it does with the next one (Swin's windows)")
    except Exception:  # whatever a network raises at a size that is not its own
        fixed, stride = size, round(size[0] / default[0])
        as_map = TokensOnGrid(who, len(prefix), fixed=fixed)
    ask = Asked(net)
    own = ask.own(images)
    unused = unused_modules(net, lambda: as_map(ask(images)[0], size))
    by_own = unused_modules(net, lambda: torch.cat([as_map(ask(images)[0], size).flatten(), *_flat(ask.own(images))]))
    blocks, norm = _blocks(net, ask, images) if tokens else ((), None)
    with torch.no_grad(), shapes_alone():
        stage = last_stage(net, lambda: ask(images)[0], [])
    return HfSurvey(
        channels=int(y.shape[1 if y.ndim == 4 else 2]),
        stride=stride,
        smallest=smallest,
        fixed=fixed,
        prefix=prefix,
        unused=unused,
        last_stage=(*(f"net.{path}" for path in stage), "as_map") if _run_alone(net, stage) else (),
        own_width=None if own is None else int(own.shape[1]),
        unused_by_own=by_own,
        blocks=blocks,
        norm=norm,
    )


class Asked:
    """A network, asked for (last hidden state, own pooler's vector or None)."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.size, self.resamples = net, own_size(net), resamples(net)

    def __call__(self, x: Tensor) -> tuple[Any, Tensor | None]:
        output = run_at_any_size(self.net, x, self.size, self.resamples)
        pooled = output.get("pooler_output")
        if not isinstance(pooled, Tensor) or pooled.shape[1:].numel() != pooled.shape[1]:
            pooled = None
        return output.get("last_hidden_state"), None if pooled is None else pooled.flatten(1)

    def own(self, x: Tensor) -> Tensor | None:
        return self(x)[1]


def channels_of(net: Any) -> int:
    """Channels of the images."""
    return int(getattr(net.config, "num_channels", 3))


def _check_order(net: Any, who: str) -> None:
    """Raises ValueError for a Hiera that keeps several tokens of a mask unit: they stand unit by unit, not row by row.

    The one thing that is known by its name: a forward pass does not tell where in the image a token lies.
    """
    pools = getattr(net.config, "num_query_pool", None)
    if pools is not None and pools < len(net.config.depths) - 1:
        raise ValueError(
            f"{who} pools its queries {pools} times in {len(net.config.depths)} stages, so its tokens are not in the "
            f"order of the image; take a Hiera with num_query_pool={len(net.config.depths) - 1}"
        )


def _run_alone(net: nn.Module, stage: tuple[str, ...]) -> bool:
    """Whether these modules need nothing but a tensor; CLIP's also need a mask, if only None."""
    for path in stage:
        try:
            inspect.signature(net.get_submodule(path).forward).bind(None)
        except TypeError:
            return False
    return bool(stage)


def _state(net: nn.Module) -> dict[tuple[str, str], object]:
    """The plain numbers that the modules hold."""
    return {
        (path, key): value
        for path, module in net.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, int | float | tuple | str)
    }


class _Chance(Tracer):
    """Notes the calls for random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: str | None = None

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        if name_of(func) in CHANCE:
            self.found = name_of(func)
        return func(*args, **kwargs)


def _first_look(ask: Asked, images: Tensor, who: str) -> Tensor:
    try:
        with torch.no_grad(), _Chance() as chance:
            y = ask(images)[0]
    except Exception as error:  # each network has its own way to say that it takes more than an image
        raise ValueError(
            f"{who} cannot be asked about an image alone ({first_line(error)}); take another network"
        ) from error
    if chance.found:
        raise ValueError(
            f"{who} draws lots ({chance.found}) in each forward pass, as masked autoencoders do: an image has no "
            f"features of its own there; take a network that sees the whole image"
        )
    if not isinstance(y, Tensor) or y.ndim not in (3, 4):
        raise ValueError(f"{who} gives no last hidden state that is tokens or a map; take another network")
    return y


def _flat(x: Tensor | None) -> list[Tensor]:
    return [] if x is None else [x.flatten()]


def _blocks(net: nn.Module, ask: Asked, images: Tensor) -> tuple[tuple[str, ...], str | None]:
    """The longest list of modules that each give tokens as the last hidden state has, if the last of them gives it
    itself or through one module more.
    """
    calls: list[tuple[str, nn.Module, Tensor | None, Any]] = []
    paths = {module: path for path, module in net.named_modules() if path}

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given = args[0] if args and isinstance(args[0], Tensor) else None
        calls.append((paths[module], module, given, tokens_of(output)))

    with hooked(list(paths.values()), net, note), torch.no_grad(), shapes_alone():
        y = ask(images)[0]
    found: dict[str, list[tuple[str, Tensor]]] = {}
    for path, module, _, output in calls:
        parent = path.rpartition(".")[0]
        listed = isinstance(net.get_submodule(parent), nn.ModuleList | nn.Sequential)
        if listed and isinstance(output, Tensor) and output.shape == y.shape and module is not None:
            found.setdefault(parent, []).append((path, output))
    for parent, made in sorted(found.items(), key=lambda item: -len(item[1])):
        children = [f"{parent}.{name}" for name, _ in net.get_submodule(parent).named_children()]
        if len(made) < 2 or [path for path, _ in made] != children:
            continue
        last = made[-1][1]
        if last is y:
            return tuple(children), None
        for path, _, given, output in calls:
            if given is last and output is y:
                return tuple(children), path
    return (), None


def tokens_of(output: Any) -> Any:
    """What a layer gives; some give it in a tuple."""
    return output[0] if isinstance(output, tuple) and output else output


@contextmanager
def hooked(paths: list[str], net: nn.Module, note: Callable[..., None]) -> Iterator[None]:
    """`note(module, args, output)` after each call of these modules."""
    handles = [net.get_submodule(path).register_forward_hook(note) for path in paths]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
