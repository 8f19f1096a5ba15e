"""`inspect`: a network by modules, its parts, the sizes it takes, and what every other head would cost on it."""

from typing import Any

from torch import nn

from gapstone.inspecting.forward_passes import PassFacts, count, look, saved_for_backward
from gapstone.inspecting.input_sizes import InputSizes, legal_sizes
from gapstone.inspecting.inspection import Inspection
from gapstone.inspecting.meta_model import MetaModel, to_meta
from gapstone.inspecting.module_tree import each_once, rows_of
from gapstone.inspecting.network_costs import LastMap, OtherHead
from gapstone.inspecting.network_parts import parts_of
from gapstone.inspecting.other_heads import AS_IT_IS, flattened, other_heads
from gapstone.inspecting.size_probe import cells, refusal, takes
from gapstone.tracing.arithmetic import Arithmetic
from gapstone.tracing.receptive_field import ReceptiveField

SIZE = (224, 224)


def inspect(
    model: nn.Module, size: int | tuple[int, int] | None = None, channels: int | None = None, name: str = ""
) -> Inspection:
    """What a network is made of and costs, for one image. Runs on shapes alone: no weights are read, no memory taken.

    Examples:
        >>> inspection = gs.inspect(torchvision.models.vgg16())
        >>> f"{inspection.head_parameters / inspection.parameters:.1%} of the parameters are in the head"
        '89.4% of the parameters are in the head'
        >>> print(inspection)  # by modules: shapes, parameters, multiply-adds, memory, receptive fields
        >>> {head.head: head.parameters for head in inspection.heads}["gap"]
        513000

    Where its last map cannot be told (a class token), `no_map` says why and `heads` is empty.

    Args:
        model: any `nn.Module` from images (N, channels, H, W) to an answer. A copy of it without numbers, and without
            the functions that were registered as its hooks, is run dozens of times. Where a model asks for numbers
            (`.item()`, NumPy), the model itself is run as often, on zeros, its hooks with it; `real` says so.
            Weights, buffers and modes are as before then, but not what `forward` or a hook changes besides.
        size: of the images, (H, W) or one side; by default the model's own where it has one, else 224×224.
        channels: of the images; by default what the first convolution takes.
        name: shown instead of the class.

    Returns:
        The inspection.

    Raises:
        ValueError: a model that does not take such images.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"inspect({type(model).__name__}): a torch.nn.Module is inspected; see gapstone inspect --help")
    model = getattr(model, "_orig_mod", model)  # torch.compile would compile for shapes
    channels = channels if channels is not None else _channels(model)
    shape = _size(size if size is not None else _own_size(model))
    if channels < 1:
        raise ValueError(f"channels {channels}: an image has at least one channel")
    meta = to_meta(model, channels, shape)
    images = meta.images(1, channels, shape)
    seen = look(meta, images)
    tallies, peak = count(meta, images)
    not_trained = refusal(meta, channels, shape, train=True)
    memory = _kept(meta, channels, shape) if not_trained is None else None
    rows = rows_of(meta.model, seen, tallies, memory)
    every = {id(p): p for p in meta.model.parameters()}
    total = Arithmetic()
    for tally in tallies.values():
        total += tally
    output, split = seen.output, seen.split
    accepted = legal_sizes(takes(meta, channels), shape)
    training = _training(meta, channels, shape, accepted)
    answers = seen.answers or frozenset(every)
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in every.values()})
    return Inspection(
        name=name or type(model).__name__,
        size=shape,
        channels=channels,
        classes=output[0] if output and len(output) == 1 else None,
        output=output,
        dtype=", ".join(kinds) or "float32",
        real=meta.real,
        parameters=sum(p.numel() for p in every.values()),
        parameter_bytes=sum(p.numel() * p.element_size() for p in every.values()),
        unused_parameters=sum(p.numel() for key, p in every.items() if key not in answers),
        head_parameters=rows[0].head_parameters if split else None,
        macs=total.macs,
        head_macs=split.head_macs if split else None,
        pooled=total.pooled,
        single=total.single,
        peak_bytes=peak,
        kept_bytes=rows[0].kept_bytes,
        last_map=_last_map(seen),
        no_map=seen.no_map,
        sizes=accepted,
        training_sizes=training,
        not_trained=not_trained,
        rows=rows,
        parts=parts_of(each_once(rows, meta.model, seen)),
        heads=_heads(meta, seen, channels, shape, accepted, every),
    )


def _heads(
    meta: MetaModel,
    seen: PassFacts,
    channels: int,
    size: tuple[int, int],
    accepted: InputSizes,
    every: dict[int, nn.Parameter],
) -> tuple[OtherHead, ...]:
    split = seen.split
    if split is None:
        return ()
    found = cells(meta, split.last, channels)
    # under a head for maps of any size: what is asked is whether the network comes to its last map
    free = accepted if accepted.everything else legal_sizes(lambda h, w: found(h, w) is not None, size)
    trunk = sum(p.numel() for key, p in every.items() if key in split.trunk)
    bytes_each = max((p.element_size() for p in every.values()), default=4)
    own = sum(p.numel() for key, p in every.items() if key in seen.answers - split.trunk)
    assert seen.output is not None
    mine = OtherHead(AS_IT_IS, own, trunk + own, split.head_macs, (trunk + own) * bytes_each, str(accepted))
    stride = split.field.stride if split.field and split.field.stride else (1.0, 1.0)
    flat = flattened(found, size, free, round(max(stride)))
    return (mine, *other_heads(trunk, bytes_each, split.channels, seen.output[0], split.cells, str(free), flat))


def _training(meta: MetaModel, channels: int, size: tuple[int, int], accepted: InputSizes) -> InputSizes | None:
    """As in eval mode where the smallest of that trains too; None where no size was found that trains."""
    works = takes(meta, channels, train=True)
    if accepted.kind == "only" or works(*accepted.smallest):
        return accepted if works(*accepted.smallest) else None
    larger = 2 * max(size)
    return next((legal_sizes(works, tried) for tried in (size, (larger, larger)) if works(*tried)), None)


def _kept(meta: MetaModel, channels: int, size: tuple[int, int]) -> dict[str, int]:
    """Per image; of two, since batch norm may refuse to learn from one."""
    both = saved_for_backward(meta, meta.images(2, channels, size))
    return {path: (bytes_ + 1) // 2 for path, bytes_ in both.items()}


def _last_map(seen: PassFacts) -> LastMap | None:
    split = seen.split
    if split is None:
        return None
    sees = split.field or ReceptiveField(None, None, False)
    return LastMap(split.channels, split.cells, sees.size, sees.stride, sees.whole)


def _channels(model: nn.Module) -> int:
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is not None and isinstance(getattr(preprocessing, "channels", None), int):
        return int(preprocessing.channels)
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    return next((m.in_channels for m in convolutions if m.in_channels), 3)  # a lazy one has none yet


def _own_size(model: nn.Module) -> Any:
    """Of gapstone's classifiers, and of timm's models."""
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is not None and isinstance(getattr(preprocessing, "size", None), tuple):
        return preprocessing.size
    described = getattr(model, "default_cfg", None)
    if isinstance(described, dict) and len(described.get("input_size") or ()) == 3:
        return tuple(described["input_size"][1:])
    return SIZE


def _size(size: Any) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
        raise ValueError(f"size {size!r}: one side or (H, W), in whole pixels")
    return sides[0], sides[1]
