"""A padded batch through any model, each image as if it were alone: the padding is kept out of every call.

The calls of the model's own forward pass are traced (docs/decisions/0012). Every tensor with positions carries the size
each image has in it. What lies beyond is left as it comes, and set to what the image alone would meet there (0 for a
convolution, −∞ for a maximum) only before a call that looks across positions. Pools over the whole map see the image's
part alone. A call that is not known is refused by its name: `masking` holds all that are.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.pooling import listening
from gapstone.ragged.extents import Extents, PaddedMaps, Size, Unsupported
from gapstone.ragged.masking import RULES, MapCall
from gapstone.ragged.own_pools import pooled
from gapstone.regions import Region
from gapstone.runtime.torch_internals import unseen_by_modes
from gapstone.tracing import operations as ops
from gapstone.tracing.tape import tensors
from gapstone.tracing.torch_calls import name_of, read_call
from gapstone.tracing.trace import Arguments, Function, Keywords, Tracer


def _caller() -> str:
    """The module that made the call which a tracer is told of."""
    frame = inspect.currentframe()
    for _ in range(3):  # this function, `call`, `__torch_function__`
        frame = frame.f_back if frame else None
    return str(frame.f_globals.get("__name__", "")) if frame else ""


class PaddedBatchTracer(Tracer):
    """For the time of one forward pass of `images` (N, C, *spatial), of which image i fills `sizes[i]`."""

    def __init__(self, images: Tensor, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.maps = PaddedMaps()
        self.calls = 0
        self.reads = False
        """The model asked for the size of a map, and may do other things for other sizes."""
        self.maps.put(images, Extents(tuple(range(2, images.dim())), tuple(sizes)))

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        self.calls += 1
        given = tensors((args, kwargs))
        inputs = [x for x in given if self.maps.of(x) is not None]
        if not inputs:
            return func(*args, **kwargs)
        name = name_of(func)
        op = read_call(name, args, kwargs)
        rule = RULES.get(type(op))
        if rule is not None:
            out = rule(self.maps, op, MapCall(func, name, inputs, args, kwargs))
            # a tensor of the model's own is no map of this batch, and nothing may be written into it
            own = len(inputs) < len(given) and any(out is x for x in given) and all(out is not x for x in inputs)
            if own and self.maps.of(out) is not None:
                raise Unsupported(f"{name} into a tensor that was there before, of shape {tuple(out.shape)}")
            return out
        out = func(*args, **kwargs)
        if tensors(out):
            raise Unsupported(f"{name} of a map of shape {tuple(inputs[0].shape)}")
        # gapstone's networks and heads ask for sizes only to refuse those that they cannot take
        if not self.reads and isinstance(op, ops.Query) and not _caller().startswith("gapstone."):
            self.reads = self._is_size(op, inputs[0], out)
        return out

    def _is_size(self, op: ops.Query, x: Tensor, out: object) -> bool:
        """x.shape, x.size(), x.size(2), x.numel(); the number of images or channels alone tells nothing of a size."""
        if op.function == "size" and op.dim is not None:
            return op.dim % x.dim() in self.maps.known(x).axes
        return isinstance(out, torch.Size) or op.function in ("numel", "nelement")

    def listen(self, x: Tensor, name: Any, over: Region, parameters: dict[str, Any]) -> Tensor | None:
        """Answers a call of gapstone's own pool; None where x is no map of this batch."""
        if self.maps.of(x) is None:
            return None
        with unseen_by_modes():
            return pooled(self.maps, x, name, over, parameters)

    def __enter__(self) -> "PaddedBatchTracer":
        self._token = listening.set(self.listen)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        listening.reset(self._token)
        self.maps.forget()


@torch.no_grad()
def run(model: nn.Module, images: Sequence[Tensor]) -> tuple[list[Tensor], PaddedBatchTracer]:
    """The model's answer for each image (C, *spatial), all in one padded batch; images of one size side by side.

    Raises: Unsupported with the name of the call.
    """
    batch, sizes = padded(images), [tuple(image.shape[1:]) for image in images]
    with PaddedBatchTracer(batch, sizes) as tracer:
        out = answer(model, batch)
        extents = tracer.maps.of(out)
    if extents is None:
        return list(out), tracer
    return [row for numbers, size in extents.runs() for row in extents.crop(out, numbers, size)], tracer


@torch.no_grad()
def padded(images: Sequence[Tensor]) -> Tensor:
    """(C, *spatial) of any sizes → (N, C, *largest), zeros beyond; channels last in memory as the images are."""
    last = images[0].dim() == 3 and images[0].stride(0) == 1 < len(images[0])
    if all(image.shape == images[0].shape for image in images):
        batch = torch.stack(tuple(images))  # a copy: a model may write into what it is given
        return batch.contiguous(memory_format=torch.channels_last) if last else batch
    lengths = map(max, zip(*(image.shape[1:] for image in images), strict=True))
    batch = images[0].new_zeros(len(images), len(images[0]), *lengths)
    if last:
        batch = batch.to(memory_format=torch.channels_last)
    for row, image in zip(batch, images, strict=True):
        row[(slice(None), *map(slice, image.shape[1:]))] = image
    return batch


@torch.no_grad()
def answer(model: nn.Module, batch: Tensor) -> Tensor:
    """What the model makes of a batch: one row for each image."""
    out = model(batch)
    out = getattr(out, "logits", out)
    if not isinstance(out, Tensor) or not out.dim() or len(out) != len(batch):
        what = f"a tensor {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise TypeError(f"{type(model).__name__} gave {what}; images of mixed sizes need one row of a tensor for each")
    return out


def together(model: nn.Module, images: Sequence[Tensor]) -> list[Tensor]:
    """The model's answer for each of some images of one size, nothing watched."""
    try:
        return list(answer(model, padded(images)))
    except (RuntimeError, AssertionError) as error:  # torch's and timm's own words for a size that is not the network's
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        size = "×".join(map(str, images[0].shape[1:]))
        raise ValueError(f"{type(model).__name__} cannot take images of {size} px: {error}") from error
