"""A padded batch through any model, each image as if it were alone: the padding is kept out of every call.

A `TorchFunctionMode` sees the calls of the model's own forward pass (docs/decisions/0012). Every tensor with positions
carries the size each image has in it. What lies beyond is left as it comes, and set to what the image alone would meet
there (0 for a convolution, −∞ for a maximum) only before a call that looks across positions. Pools over the whole map
see the image's part alone. A call that is not known is refused by its name: `rules.py` holds all that are.
"""

import inspect
from collections.abc import Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gapstone.mixed.ours import pooled
from gapstone.mixed.valid import Masks, Refused, Size, Valid
from gapstone.pooling import listening
from gapstone.regions import Region
from gapstone.runtime.torch_internals import unseen_by_modes

ATTRIBUTE = "_gapstone_valid"
"""Of tensors: a tenth of what a dictionary of weak references costs."""


def _caller() -> str:
    """The module that made the call which a mode is told of."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame.f_back if frame else None
    return str(frame.f_globals.get("__name__", "")) if frame else ""


class Masked(TorchFunctionMode):
    """For the time of one forward pass of `images` (N, C, *spatial), of which image i fills `sizes[i]`."""

    def __init__(self, images: Tensor, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.masks = Masks()
        self.calls = 0
        self.products = 0
        """Multiply-adds of the convolutions."""
        self.reads = False
        """The model asked for the size of a map, and may do other things for other sizes."""
        self._key = object()
        self._put: list[ref[Tensor]] = []
        self.put(images, Valid(tuple(range(2, images.dim())), tuple(sizes)))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from gapstone.mixed.rules import RULES

        kwargs = kwargs or {}
        self.calls += 1
        given = tensors(args, kwargs)
        inputs = [x for x in given if self.of(x) is not None]
        if not inputs:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        rule = RULES.get(name)
        if rule is not None:
            out = rule(self, func, name, inputs, args, kwargs)
            # a tensor of the model's own is no map of this batch, and nothing may be written into it
            own = len(inputs) < len(given) and any(out is x for x in given) and all(out is not x for x in inputs)
            if own and self.of(out) is not None:
                raise Refused(f"{name} into a tensor that was there before, of shape {tuple(out.shape)}")
            return out
        out = func(*args, **kwargs)
        if tensors((out,), {}):
            raise Refused(f"{name} of a map of shape {tuple(inputs[0].shape)}")
        # gapstone's networks and heads ask for sizes only to refuse those that they cannot take
        if not self.reads and not _caller().startswith("gapstone."):
            self.reads = self._is_size(name, inputs[0], args, kwargs, out)
        return out

    def _is_size(self, name: str, x: Tensor, args: Any, kwargs: Any, out: object) -> bool:
        """x.shape, x.size(), x.size(2), x.numel(); the number of images or channels alone tells nothing of a size."""
        if name == "size" and isinstance(out, int):
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            return dim % x.dim() in self.known(x).axes
        return isinstance(out, torch.Size) or name in ("numel", "nelement")

    def of(self, x: Tensor) -> Valid | None:
        """What is valid of a tensor; None where it has no positions of images."""
        found = getattr(x, ATTRIBUTE, None)
        return found[1] if found is not None and found[0] is self._key else None

    def known(self, x: Tensor) -> Valid:
        valid = self.of(x)
        assert valid is not None
        return valid

    def put(self, x: Tensor, valid: Valid) -> Tensor:
        setattr(x, ATTRIBUTE, (self._key, valid))
        self._put.append(ref(x))
        return x

    def clear(self, x: Tensor) -> None:
        """0 beyond the images, in place: nobody reads what was there."""
        valid = self.known(x)
        if not valid.fills(x):
            x.mul_(self.masks.ones(x, valid))

    def listen(self, x: Tensor, name: Any, over: Region, parameters: dict[str, Any]) -> Tensor | None:
        """A call of gapstone's own pool; None: none of ours."""
        if self.of(x) is None:
            return None
        with unseen_by_modes():
            return pooled(self, x, name, over, parameters)

    def __enter__(self) -> "Masked":
        self._token = listening.set(self.listen)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        listening.reset(self._token)
        for one in self._put:  # a model may keep its maps, and be saved with them
            x = one()
            if x is not None and ATTRIBUTE in x.__dict__:
                delattr(x, ATTRIBUTE)


@torch.no_grad()
def run(model: nn.Module, images: Sequence[Tensor]) -> tuple[list[Tensor], Masked]:
    """The model's answer for each image (C, *spatial), all in one padded batch; images of one size side by side.

    Raises: Refused with the name of the call.
    """
    batch, sizes = padded(images), [tuple(image.shape[1:]) for image in images]
    mode = Masked(batch, sizes)
    with mode:
        out = answer(model, batch)
        valid = mode.of(out)
    if valid is None:
        return list(out), mode
    return [row for numbers, size in valid.runs() for row in valid.crop(out, numbers, size)], mode


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


def tensors(args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Of a call's arguments, and of the lists among them."""
    found: list[Tensor] = []
    for part in (*args, *kwargs.values()):
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, tuple | list):
            found += tensors(part, {})
    return found
