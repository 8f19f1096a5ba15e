"""`inspect`: the costs of a network per module and part, the sizes it takes, and the costs of every other head."""

from typing import Any

from torch import nn

from gapstone.inspecting.forward_passes import PassFacts, count_arithmetic, saved_for_backward, trace_shapes
from gapstone.inspecting.input_sizes import InputSizes, legal_sizes
from gapstone.inspecting.inspection import Inspection
from gapstone.inspecting.meta_model import MetaModel, to_meta
from gapstone.inspecting.module_tree import count_shared_once, module_rows
from gapstone.inspecting.network_costs import LastMap, OtherHead
from gapstone.inspecting.network_parts import network_parts
from gapstone.inspecting.other_heads import AS_IT_IS, flattening_sizes, other_heads
from gapstone.inspecting.size_probe import last_map_cells, refusal_reason, takes
from gapstone.tracing.arithmetic import Arithmetic
from gapstone.tracing.receptive_field import ReceptiveField

SIZE = (224, 224)


def inspect(
    model: nn.Module, size: int | tuple[int, int] | None = None, channels: int | None = None, name: str = ""
) -> Inspection:
    """Compute the costs of a network for one image, on shapes alone: no weights are read, no memory is allocated.

    Examples:
        >>> inspection = gs.inspect(torchvision.models.vgg16())
        >>> f"{inspection.head_parameters / inspection.parameters:.1%} of the parameters are in the head"
        '89.4% of the parameters are in the head'
        >>> print(inspection)  # per module: shapes, parameters, multiply-adds, memory, receptive fields
        >>> {head.head: head.parameters for head in inspection.heads}["gap"]
        513000

    If the last map cannot be located (class tokens), `no_map` says why and `heads` is empty.

    Args:
        model: Any `nn.Module` from images (N, channels, H, W) to an output. A copy of it on the meta device, without
            the functions that were registered as its hooks, is run dozens of times. If a model needs values
            (`.item()`, NumPy), the model itself is run as often on zeros, with its hooks; `real` then says why.
            Weights, buffers and modes are restored, but not what `forward` or a hook changes besides.
        size: (H, W) of the images, or one side; by default the model's own if it has one, else 224×224.
        channels: Channels of the images; by default those of the first convolution.
        name: Shown instead of the class.

    Returns:
        The inspection.

    Raises:
        TypeError: If `model` is not an `nn.Module`.
        ValueError: If the model does not take such images.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"inspect({type(model).__name__}): a torch.nn.Module is inspected; see gapstone inspect --help")
    model = getattr(model, "_orig_mod", model)  # torch.compile would compile on the meta device
    channels = channels if channels is not None else _channels(model)
    shape = _size(size if size is not None else _own_size(model))
    if channels < 1:
        raise ValueError(f"channels {channels}: an image has at least one channel")
    meta = to_meta(model, channels, shape)
    images = meta.images(1, channels, shape)
    facts = trace_shapes(meta, images)
    tallies, peak = count_arithmetic(meta, images)
    not_trained = refusal_reason(meta, channels, shape, train=True)
    memory = _saved_bytes(meta, channels, shape) if not_trained is None else None
    rows = module_rows(meta.model, facts, tallies, memory)
    parameters = {id(p): p for p in meta.model.parameters()}
    total = Arithmetic()
    for tally in tallies.values():
        total += tally
    output, split = facts.output, facts.split
    accepted = legal_sizes(takes(meta, channels), shape)
    training = _training_sizes(meta, channels, shape, accepted)
    used = facts.used or frozenset(parameters)
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in parameters.values()})
    return Inspection(
        name=name or type(model).__name__,
        size=shape,
        channels=channels,
        classes=output[0] if output and len(output) == 1 else None,
        output=output,
        dtype=", ".join(kinds) or "float32",
        real=meta.real,
        parameters=sum(p.numel() for p in parameters.values()),
        parameter_bytes=sum(p.numel() * p.element_size() for p in parameters.values()),
        unused_parameters=sum(p.numel() for key, p in parameters.items() if key not in used),
        head_parameters=rows[0].head_parameters if split else None,
        macs=total.macs,
        head_macs=split.head_macs if split else None,
        pooled=total.pooled,
        single=total.single,
        peak_bytes=peak,
        kept_bytes=rows[0].kept_bytes,
        last_map=_last_map(facts),
        no_map=facts.no_map,
        sizes=accepted,
        training_sizes=training,
        not_trained=not_trained,
        rows=rows,
        parts=network_parts(count_shared_once(rows, meta.model, facts)),
        heads=_heads(meta, facts, channels, shape, accepted, parameters),
    )


def _heads(
    meta: MetaModel,
    facts: PassFacts,
    channels: int,
    size: tuple[int, int],
    accepted: InputSizes,
    parameters: dict[int, nn.Parameter],
) -> tuple[OtherHead, ...]:
    split = facts.split
    if split is None:
        return ()
    cells_of_size = last_map_cells(meta, split.position, channels)
    # the sizes under a head for maps of any size: those for which the network reaches its last map
    free = accepted if accepted.everything else legal_sizes(lambda h, w: cells_of_size(h, w) is not None, size)
    trunk = sum(p.numel() for key, p in parameters.items() if key in split.trunk)
    bytes_each = max((p.element_size() for p in parameters.values()), default=4)
    head = sum(p.numel() for key, p in parameters.items() if key in facts.used - split.trunk)
    assert facts.output is not None
    own_head = OtherHead(AS_IT_IS, head, trunk + head, split.head_macs, (trunk + head) * bytes_each, str(accepted))
    stride = split.field.stride if split.field and split.field.stride else (1.0, 1.0)
    flat = flattening_sizes(cells_of_size, size, free, round(max(stride)))
    return (own_head, *other_heads(trunk, bytes_each, split.channels, facts.output[0], split.cells, str(free), flat))


def _training_sizes(meta: MetaModel, channels: int, size: tuple[int, int], accepted: InputSizes) -> InputSizes | None:
    """Return the sizes in training mode: those of eval mode if their smallest trains too; None if no size trains."""
    works = takes(meta, channels, train=True)
    if accepted.kind == "only" or works(*accepted.smallest):
        return accepted if works(*accepted.smallest) else None
    larger = 2 * max(size)
    return next((legal_sizes(works, tried) for tried in (size, (larger, larger)) if works(*tried)), None)


def _saved_bytes(meta: MetaModel, channels: int, size: tuple[int, int]) -> dict[str, int]:
    """Return the bytes saved for backward per image, of two images: batch norm may refuse to train on one."""
    both = saved_for_backward(meta, meta.images(2, channels, size))
    return {path: (bytes_ + 1) // 2 for path, bytes_ in both.items()}


def _last_map(facts: PassFacts) -> LastMap | None:
    split = facts.split
    if split is None:
        return None
    sees = split.field or ReceptiveField(None, None, False)
    return LastMap(split.channels, split.cells, sees.size, sees.stride, sees.whole)


def _channels(model: nn.Module) -> int:
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is not None and isinstance(getattr(preprocessing, "channels", None), int):
        return int(preprocessing.channels)
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    return next((m.in_channels for m in convolutions if m.in_channels), 3)  # a lazy convolution has 0


def _own_size(model: nn.Module) -> Any:
    """Return the image size of gapstone's classifiers and of timm's models."""
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is not None and isinstance(getattr(preprocessing, "size", None), tuple):
        return preprocessing.size
    config = getattr(model, "default_cfg", None)
    if isinstance(config, dict) and len(config.get("input_size") or ()) == 3:
        return tuple(config["input_size"][1:])
    return SIZE


def _size(size: Any) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
        raise ValueError(f"size {size!r}: one side or (H, W), in whole pixels")
    return sides[0], sides[1]
