"""Vectors in compiled loops: a Numba type that LLVM holds in registers, its operators, loads and stores.

`Vector("f32", 32)` is LLVM's <32 x float>: two AVX-512 registers, four of AVX, eight of NEON. A pool's functions are
compiled for it as they stand: `s / n`, `x > 0.0`, `a & b`. Written out because LLVM's own vectoriser leaves rows of
7 to 28 positions to scalar code: 2-10x slower.
"""

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

# no "nnan", no "ninf": NaN and ∞ are answers. No "reassoc": sums have the order that the kernels give them
FAST = ("contract", "arcp", "nsz")

ELEMENTS: dict[str, ir.Type] = {
    "f32": ir.FloatType(),
    "f64": ir.DoubleType(),
    "i32": ir.IntType(32),
    "i64": ir.IntType(64),
    "i1": ir.IntType(1),
}
SCALARS = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64}
BYTES = {"f32": 4, "f64": 8, "bf16": 2, "f16": 2, "u8": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8}


class Vector(types.Type):  # type: ignore[misc]
    def __init__(self, kind: str, lanes: int) -> None:
        self.kind, self.lanes = kind, lanes
        super().__init__(name=f"Vector({kind} x {lanes})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(ELEMENTS[kind.kind], kind.lanes))


def constant(kind: ir.Type, value: Any) -> ir.Constant:
    """The same number in every lane, or the number alone."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [value] * kind.count)
    return ir.Constant(kind, value)


def splat(builder: Any, value: Any, lanes: int) -> Any:
    kind = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def as_lanes(context: Any, builder: Any, value: Any, given: Any, wanted: Vector) -> Any:
    """A number becomes a vector with that number in every lane."""
    if isinstance(given, Vector):
        return value
    return splat(builder, context.cast(builder, value, given, SCALARS[wanted.kind]), wanted.lanes)


def call(builder: Any, name: str, *values: Any, flags: tuple[str, ...] = ()) -> Any:
    """LLVM's own function of that name for these vectors."""
    kind = values[0].type
    element = {"float": "f32", "double": "f64"}.get(str(kind.element), str(kind.element))
    own = declared(builder, ir.FunctionType(kind, [v.type for v in values]), f"llvm.{name}.v{kind.count}{element}")
    return builder.call(own, values, fastmath=flags)


def declared(builder: Any, kind: ir.FunctionType, name: str) -> Any:
    """A function of that name in the module that is being written."""
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def pointer(builder: Any, address: Any) -> Any:
    """Of an address, an int64."""
    return builder.inttoptr(address, ir.PointerType())


def unpack(builder: Any, value: Any) -> list[Any]:
    """A tuple's parts."""
    return [builder.extract_value(value, part) for part in range(len(value.type.elements))]


def _is_float(kind: Vector) -> bool:
    return kind.kind.startswith("f")


def _arithmetic(name: str) -> Callable[..., Any]:
    def emit(builder: Any, kind: Vector, a: Any, b: Any) -> Any:
        if _is_float(kind):
            return getattr(builder, "f" + name)(a, b, flags=FAST)
        return getattr(builder, name if name != "div" else "sdiv")(a, b)

    return emit


def _comparison(sign: str) -> Callable[..., Any]:
    def emit(builder: Any, kind: Vector, a: Any, b: Any) -> Any:
        if not _is_float(kind):
            return builder.icmp_signed(sign, a, b)
        compare = builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered
        return compare(sign, a, b)

    return emit


OPERATORS: dict[Any, tuple[Callable[..., Any], bool]] = {
    operator.add: (_arithmetic("add"), False),
    operator.sub: (_arithmetic("sub"), False),
    operator.mul: (_arithmetic("mul"), False),
    operator.truediv: (_arithmetic("div"), False),
    operator.gt: (_comparison(">"), True),
    operator.lt: (_comparison("<"), True),
    operator.ge: (_comparison(">="), True),
    operator.le: (_comparison("<="), True),
    operator.eq: (_comparison("=="), True),
    operator.ne: (_comparison("!="), True),
    operator.and_: (_arithmetic("and_"), False),
    operator.or_: (_arithmetic("or_"), False),
}


def _define(function: Any, emit: Callable[..., Any], compares: bool) -> None:
    @type_callable(function)
    def typing(_context: Any) -> Any:
        def result(a: Any, b: Any) -> Any:
            vectors = [kind for kind in (a, b) if isinstance(kind, Vector)]
            if not vectors or len({*vectors}) > 1:
                return None
            return Vector("i1", vectors[0].lanes) if compares else vectors[0]

        return result

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        kind = next(k for k in sig.args if isinstance(k, Vector))
        a, b = (as_lanes(context, builder, v, k, kind) for v, k in zip(values, sig.args, strict=True))
        return emit(builder, kind, a, b)

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(function, *pair)(lower)


for _function, (_emit, _compares) in OPERATORS.items():
    _define(_function, _emit, _compares)


@type_callable(operator.neg)
def _negation(_context: Any) -> Any:
    def result(a: Any) -> Any:
        return a if isinstance(a, Vector) else None

    return result


@lower_builtin(operator.neg, Vector)
def _negate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    return builder.fneg(values[0]) if _is_float(sig.args[0]) else builder.neg(values[0])


@lru_cache
def lanes_of(kind: str, lanes: int) -> tuple[Any, Any]:
    """full(value): that number in every lane; counting(): 0, 1, 2, … as int32."""

    @intrinsic
    def full(typing: Any, value: Any) -> Any:
        wanted = Vector(kind, lanes)

        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            return as_lanes(context, builder, values[0], sig.args[0], wanted)

        return wanted(value), emit

    @intrinsic
    def counting(typing: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            return ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(lanes)))

        return Vector("i32", lanes)(), emit

    return full, counting


@lru_cache
def state_maker(kind: str, lanes: int, positions: tuple[int, ...]) -> Any:
    """as_state(parts): every part a vector; those in `positions` of int32."""

    @intrinsic
    def as_state(typing: Any, parts: Any) -> Any:
        wanted = [Vector("i32" if k in positions else kind, lanes) for k in range(len(parts.types))]
        result = types.Tuple(wanted)

        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            unpacked = unpack(builder, values[0])
            made = [as_lanes(context, builder, v, k, w) for v, k, w in zip(unpacked, parts.types, wanted, strict=True)]
            return context.make_tuple(builder, result, made)

        return result(parts), emit

    return as_state


@intrinsic
def chosen(typing: Any, mask: Any, state: Any, other: Any) -> Any:
    """Of two states, lane by lane, the first where the mask is true."""

    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pairs = zip(unpack(builder, values[1]), unpack(builder, values[2]), strict=True)
        return context.make_tuple(builder, state, [builder.select(values[0], a, b) for a, b in pairs])

    return state(mask, state, other), emit


@intrinsic
def added(typing: Any, state: Any, other: Any) -> Any:
    """Two tuples of sums become one."""

    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pairs = zip(unpack(builder, values[0]), unpack(builder, values[1]), strict=True)
        made = [emit_add(builder, k, a, b) for k, (a, b) in zip(state.types, pairs, strict=True)]
        return context.make_tuple(builder, state, made)

    emit_add = _arithmetic("add")
    return state(state, other), emit


@intrinsic
def scaled(typing: Any, state: Any, weight: Any) -> Any:
    """Every sum times a weight, a number."""

    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        parts = unpack(builder, values[0])
        made = [
            builder.fmul(part, as_lanes(context, builder, values[1], weight, kind), flags=FAST)
            for part, kind in zip(parts, state.types, strict=True)
        ]
        return context.make_tuple(builder, state, made)

    return state(state, weight), emit


@lru_cache
def replacer(part: int) -> Any:
    """replace(state, value): a state with another number in one part."""

    @intrinsic
    def replace(typing: Any, state: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            return builder.insert_value(values[0], values[1], part)

        return state(state, value), emit

    return replace
