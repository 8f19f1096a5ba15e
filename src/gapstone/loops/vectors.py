"""Vectors in compiled loops: a Numba type that LLVM holds in registers, its operators, loads and stores.

`Vector("f32", 32)` is LLVM's <32 x float>: two AVX-512 registers, four of AVX, eight of NEON. A pool's functions are
compiled for it as they stand: `s / n`, `x > 0.0`, `a & b`. Written out because LLVM's own vectoriser leaves rows of
7 to 28 positions to scalar code: 2-10x slower.
"""

import operator
from collections.abc import Callable
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


def _bits(name: str) -> Callable[..., Any]:
    def emit(builder: Any, kind: Vector, a: Any, b: Any) -> Any:
        return getattr(builder, name)(a, b)

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
    operator.and_: (_bits("and_"), False),
    operator.or_: (_bits("or_"), False),
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


# numbers in memory: `storage` is how they lie there, `kind` how they are computed with


def widen(builder: Any, value: Any, storage: str, wanted: ir.Type) -> Any:
    if storage in ("f32", "f64"):
        return value
    if storage == "f16":
        half = _like(wanted, ir.HalfType())
        return builder.fpext(builder.bitcast(value, half), wanted)
    if storage == "bf16":
        bits = _like(wanted, ir.IntType(32))
        return builder.bitcast(builder.shl(builder.zext(value, bits), constant(bits, 16)), wanted)
    if value.type == wanted:
        return value
    return builder.zext(value, wanted) if storage == "u8" else builder.sext(value, wanted)


def narrow(builder: Any, value: Any, storage: str) -> Any:
    if storage in ("f32", "f64"):
        return value
    if storage == "f16":
        half = _like(value.type, ir.HalfType())
        return builder.bitcast(builder.fptrunc(value, half), _like(half, ir.IntType(16)))
    if storage == "bf16":
        word, short = _like(value.type, ir.IntType(32)), _like(value.type, ir.IntType(16))
        bits = builder.bitcast(value, word)
        odd = builder.and_(builder.lshr(bits, constant(word, 16)), constant(word, 1))
        rounded = builder.add(bits, builder.add(odd, constant(word, 0x7FFF)))  # to the nearest, ties to even
        nan = builder.fcmp_unordered("uno", value, value)
        kept = builder.select(nan, constant(word, 0x7FC00000), rounded)
        return builder.trunc(builder.lshr(kept, constant(word, 16)), short)
    wanted = _like(value.type, ir.IntType(8 * BYTES[storage]))
    return value if value.type == wanted else builder.trunc(value, wanted)


def _like(kind: ir.Type, element: ir.Type) -> ir.Type:
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def in_memory(storage: str, kind: ir.Type) -> ir.Type:
    if storage in ("f32", "f64"):
        return kind
    return _like(kind, ir.IntType(8 * BYTES[storage]))


def _pointer(builder: Any, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, ir.PointerType())


def reader(storage: str, kind: str, lanes: int) -> Any:
    """read(address): so many numbers that lie side by side; `lanes` 0: a number, not a vector."""

    @intrinsic
    def read(typing: Any, address: Any) -> Any:
        result: Any = Vector(kind, lanes) if lanes else SCALARS[kind]

        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            wanted = context.get_value_type(result)
            raw = in_memory(storage, wanted)
            value = builder.load(_pointer(builder, values[0], raw), align=BYTES[storage], typ=raw)
            return widen(builder, value, storage, wanted)

        return result(types.int64), emit

    return read


def writer(storage: str) -> Any:
    """write(address, value): a vector's numbers side by side, or one number."""

    @intrinsic
    def write(typing: Any, address: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            stored = narrow(builder, values[1], storage)
            builder.store(stored, _pointer(builder, values[0], stored.type), align=BYTES[storage])
            return context.get_dummy_value()

        return types.void(types.int64, value), emit

    return write


def mask_reader(lanes: int) -> Any:
    """read_mask(address): a byte per lane; true where it is not 0."""

    @intrinsic
    def read_mask(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            kind = ir.VectorType(ir.IntType(8), lanes)
            value = builder.load(_pointer(builder, values[0], kind), align=1, typ=kind)
            return builder.icmp_unsigned("!=", value, constant(kind, 0))

        return Vector("i1", lanes)(types.int64), emit

    return read_mask


def pair_splitter(storage: str, kind: str, lanes: int) -> Any:
    """split(address, even, odd): of 2 x lanes numbers the even ones to one address, the odd ones to the other."""

    @intrinsic
    def split(typing: Any, address: Any, even: Any, odd: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            wanted = ir.VectorType(ELEMENTS[kind], lanes)
            raw = in_memory(storage, wanted)
            halves = []
            for start in (0, lanes * BYTES[storage]):
                at = builder.add(values[0], ir.Constant(ir.IntType(64), start))
                halves.append(builder.load(_pointer(builder, at, raw), align=BYTES[storage], typ=raw))
            for first, to in enumerate(values[1:]):
                picks = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(first, 2 * lanes, 2)))
                part = widen(builder, builder.shuffle_vector(*halves, picks), storage, wanted)
                builder.store(part, _pointer(builder, to, wanted), align=BYTES[kind])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), emit

    return split


def pair_weaver(kind: str, storage: str, lanes: int) -> Any:
    """weave(even, odd, address, add): the other way round; added to what is there if `add`."""

    @intrinsic
    def weave(typing: Any, even: Any, odd: Any, address: Any, add: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            own = ir.VectorType(ELEMENTS[kind], lanes)
            halves = [builder.load(_pointer(builder, at, own), align=BYTES[kind], typ=own) for at in values[:2]]
            mask = ir.VectorType(ir.IntType(1), lanes)
            adds = splat(builder, builder.icmp_signed("!=", values[3], ir.Constant(ir.IntType(64), 0)), lanes)
            assert adds.type == mask
            for half in range(2):
                places = [half * lanes // 2 + i // 2 + (i % 2) * lanes for i in range(lanes)]
                picks = ir.Constant(ir.VectorType(ir.IntType(32), lanes), places)
                value = builder.shuffle_vector(*halves, picks)
                at = builder.add(values[2], ir.Constant(ir.IntType(64), half * lanes * BYTES[storage]))
                raw = in_memory(storage, own)
                there = widen(
                    builder, builder.load(_pointer(builder, at, raw), align=BYTES[storage], typ=raw), storage, own
                )
                value = builder.select(adds, builder.fadd(there, value), value)
                stored = narrow(builder, value, storage)
                builder.store(stored, _pointer(builder, at, stored.type), align=BYTES[storage])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), emit

    return weave


def turner(source: str, kind: str, to: str) -> Any:
    """turn(address, bytes, to, to_bytes): 8 rows of 8 numbers become 8 columns."""

    @intrinsic
    def turn(typing: Any, address: Any, row: Any, to_address: Any, to_row: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            own = ir.VectorType(ELEMENTS[kind], 8)
            raw = in_memory(source, own)
            i64 = ir.IntType(64)

            def at(start: Any, stride: Any, number: int) -> Any:
                return builder.add(start, builder.mul(stride, ir.Constant(i64, number)))

            rows = []
            for i in range(8):
                pointer = _pointer(builder, at(values[0], values[1], i), raw)
                rows.append(widen(builder, builder.load(pointer, align=BYTES[source], typ=raw), source, own))
            for _ in range(3):  # three times: row i and row i + 4 become rows 2 i and 2 i + 1, interleaved
                turned = []
                for i in range(4):
                    for half in (0, 4):
                        places = [half + j // 2 + j % 2 * 8 for j in range(8)]
                        picks = ir.Constant(ir.VectorType(ir.IntType(32), 8), places)
                        turned.append(builder.shuffle_vector(rows[i], rows[i + 4], picks))
                rows = turned
            for i, value in enumerate(rows):
                stored = narrow(builder, value, to)
                pointer = _pointer(builder, at(values[2], values[3], i), stored.type)
                builder.store(stored, pointer, align=BYTES[to])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), emit

    return turn


@intrinsic
def number(typing: Any, address: Any, index: Any) -> Any:
    """A whole number (int64) of a table."""

    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        kind = ir.IntType(64)
        return builder.load(builder.gep(_pointer(builder, values[0], kind), [values[1]], source_etype=kind), typ=kind)

    return types.int64(types.int64, types.int64), emit


@intrinsic
def take(typing: Any, address: Any) -> Any:
    """The next number of a counter that several threads share."""

    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        kind = ir.IntType(64)
        return builder.atomic_rmw("add", _pointer(builder, values[0], kind), ir.Constant(kind, 1), "monotonic")

    return types.int64(types.int64), emit


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


def replacer(part: int) -> Any:
    """replace(state, value): a state with another number in one part."""

    @intrinsic
    def replace(typing: Any, state: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            return builder.insert_value(values[0], values[1], part)

        return state(state, value), emit

    return replace
