"""The calls in which tokens hear each other: what they add up, with which weights.

    out = finish(weights @ heads(value))

As torch has it in one call, scaled_dot_product_attention and nn.MultiheadAttention; as a product of held weights; as a
mean.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.tracing import operations as ops
from gapstone.tracing.tape import Slot, TapeCall, replaced

PRODUCTS = frozenset(["matmul", "mm", "bmm"])
_WHOLE = inspect.signature(F.multi_head_attention_forward)
UNLIKE = ("bias_k", "bias_v", "static_k", "static_v", "add_zero_attn", "is_causal", "enable_gqa")
"""Arguments with which an attention is not this sum."""


@dataclass(frozen=True)
class Mixing:
    """One of these calls."""

    value: Slot
    axis: int
    """Of the value, which is added up."""
    weights: Callable[[Mapping[int, Tensor], int | None], Tensor]
    """(…, R, S), of the tensors by slot; of so many hearers, or of all."""
    heads: Callable[[Tensor, bool], Tensor]
    """The value as it is added up, (…, S, D); without constants, where told so."""
    finish: Callable[[Tensor, bool], Tensor]
    """From what was added up, (…, R, D), to what the call gives; likewise."""


def mixing_of(call: TapeCall) -> Mixing | None:
    """What a call adds up; None where it is none of these."""
    if call.operation.function == "scaled_dot_product_attention":
        return _fused(call)
    if call.operation.function == "multi_head_attention_forward":
        return _torch(call)
    if isinstance(call.operation, ops.Reduce):
        return _averaged(call, call.operation)
    if isinstance(call.operation, ops.MatrixProduct) and call.operation.function in PRODUCTS and len(call.args) > 1:
        left, right = call.args[:2]
        if isinstance(left, Slot) and isinstance(right, Slot):
            return Mixing(right, -2, lambda values, rows: values[left.number][..., :rows, :], _same, _same)
    return None


def attention_weights(
    query: Tensor, key: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """What scaled_dot_product_attention multiplies the values with."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1)


def _same(x: Tensor, linear: bool) -> Tensor:
    return x


def _averaged(call: TapeCall, op: ops.Reduce) -> Mixing | None:
    """mean, sum: all with the same weight."""
    value = call.args[0] if call.args else call.kwargs.get("input")
    if not isinstance(value, Slot) or op.dims != (value.dim() - 2,) or op.function not in ("mean", "sum"):
        return None

    def weights(values: Mapping[int, Tensor], rows: int | None) -> Tensor:
        x = values[value.number]
        each = x.new_ones(*x.shape[:-2], 1, x.shape[-2])
        return each / x.shape[-2] if op.function == "mean" else each

    def finish(x: Tensor, linear: bool) -> Tensor:
        return x if op.keepdim else x.squeeze(-2)

    return Mixing(value, -2, weights, _same, finish)


def _fused_arguments(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
                     is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False
                     ) -> dict[str, Any]:  # fmt: skip
    """By name, those of torch's function."""
    return {"query": query, "key": key, "value": value, "attn_mask": attn_mask, "is_causal": is_causal, "scale": scale,
            "enable_gqa": enable_gqa}  # fmt: skip


def _fused(call: TapeCall) -> Mixing | None:
    given = _fused_arguments(*call.args, **call.kwargs)
    value = given["value"]
    if not isinstance(value, Slot) or any(given.get(name) for name in UNLIKE):
        return None

    def weights(values: Mapping[int, Tensor], rows: int | None) -> Tensor:
        query, key, mask = (_filled(given[name], values) for name in ("query", "key", "attn_mask"))
        if mask is not None and mask.shape[-2] == query.shape[-2]:
            mask = mask[..., :rows, :]
        return attention_weights(query[..., :rows, :], key, mask, given["scale"])

    return Mixing(value, -2, weights, _same, _same)


def _torch(call: TapeCall) -> Mixing | None:
    """nn.MultiheadAttention, whose call makes queries, keys and values itself: tokens first, (T, N, C)."""
    given = _WHOLE.bind(*call.args, **call.kwargs).arguments
    value = given["value"]
    if not isinstance(value, Slot) or any(given.get(name) is not None and given[name] is not False for name in UNLIKE):
        return None

    def weights(values: Mapping[int, Tensor], rows: int | None) -> Tensor:
        filled = {name: _filled(part, values) for name, part in given.items()}
        filled |= {"query": filled["query"][:rows], "need_weights": True, "average_attn_weights": False}
        if filled.get("attn_mask") is not None:
            filled["attn_mask"] = filled["attn_mask"][..., :rows, :]
        made: Tensor = call.function(**filled)[1]
        return made

    separate, bias = given.get("use_separate_proj_weight"), given["in_proj_bias"]
    into = given["v_proj_weight"] if separate else given["in_proj_weight"].chunk(3)[2]
    into_bias = None if bias is None else bias.chunk(3)[2]

    def heads(x: Tensor, linear: bool) -> Tensor:
        made = F.linear(x, into, None if linear else into_bias)
        return made.view(*made.shape[:2], given["num_heads"], -1).permute(1, 2, 0, 3)

    def finish(x: Tensor, linear: bool) -> Tensor:
        out_bias = None if linear else given["out_proj_bias"]
        made: Tensor = F.linear(x.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], out_bias)
        return made

    return Mixing(value, 0, weights, heads, finish)


def _filled(part: Any, values: Mapping[int, Tensor]) -> Any:
    return replaced(part, partial(_of_slot, values=values))


def _of_slot(part: Any, values: Mapping[int, Tensor]) -> Any:
    return values[part.number] if isinstance(part, Slot) else part
