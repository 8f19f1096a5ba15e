"""Loads and stores of vectors in compiled loops, and the counters and tables that kernels read.

`storage` is the type that numbers have in memory (bf16, u8, …), `kind` the type they are computed with.
"""

from functools import lru_cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gapstone.loops.vectors import BYTES, ELEMENTS, SCALARS, Vector, constant, pointer, splat

NAMES = {scalar: name for name, scalar in SCALARS.items()}


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


def load(builder: Any, address: Any, storage: str, wanted: ir.Type) -> Any:
    """What lies at an address as `storage`, as the type it is computed with."""
    raw = in_memory(storage, wanted)
    return widen(builder, builder.load(pointer(builder, address), align=BYTES[storage], typ=raw), storage, wanted)


def store(builder: Any, value: Any, address: Any, storage: str) -> None:
    builder.store(narrow(builder, value, storage), pointer(builder, address), align=BYTES[storage])


@lru_cache
def reader(storage: str, kind: str, lanes: int) -> Any:
    """read(address): so many numbers that lie side by side; `lanes` 0: a number, not a vector."""

    @intrinsic
    def read(typing: Any, address: Any) -> Any:
        result: Any = Vector(kind, lanes) if lanes else SCALARS[kind]

        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            return load(builder, values[0], storage, context.get_value_type(result))

        return result(types.int64), emit

    return read


@lru_cache
def writer(storage: str | None = None) -> Any:
    """write(address, value): a vector's numbers side by side, or one number; None: as they are computed."""

    @intrinsic
    def write(typing: Any, address: Any, value: Any) -> Any:
        kind = storage or (value.kind if isinstance(value, Vector) else NAMES[value])

        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            store(builder, values[1], values[0], kind)
            return context.get_dummy_value()

        return types.void(types.int64, value), emit

    return write


def not_zero(builder: Any, address: Any, kind: ir.Type) -> Any:
    """Which of the bytes at an address are not 0; `kind`: one byte, or a vector of them."""
    return builder.icmp_unsigned("!=", builder.load(pointer(builder, address), align=1, typ=kind), constant(kind, 0))


@lru_cache
def mask_reader(lanes: int) -> Any:
    """read_mask(address): a byte per lane; true where it is not 0."""

    @intrinsic
    def read_mask(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            kind = ir.VectorType(ir.IntType(8), lanes)
            return not_zero(builder, values[0], kind)

        return Vector("i1", lanes)(types.int64), emit

    return read_mask


@lru_cache
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
                halves.append(builder.load(pointer(builder, at), align=BYTES[storage], typ=raw))
            for first, to in enumerate(values[1:]):
                picks = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(first, 2 * lanes, 2)))
                store(builder, widen(builder, builder.shuffle_vector(*halves, picks), storage, wanted), to, kind)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), emit

    return split


@lru_cache
def pair_weaver(kind: str, storage: str, lanes: int) -> Any:
    """weave(even, odd, address, add): the other way round; added to what is there if `add`."""

    @intrinsic
    def weave(typing: Any, even: Any, odd: Any, address: Any, add: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            own = ir.VectorType(ELEMENTS[kind], lanes)
            halves = [load(builder, at, kind, own) for at in values[:2]]
            adds = splat(builder, builder.icmp_signed("!=", values[3], ir.Constant(ir.IntType(64), 0)), lanes)
            for half in range(2):
                places = [half * lanes // 2 + i // 2 + (i % 2) * lanes for i in range(lanes)]
                picks = ir.Constant(ir.VectorType(ir.IntType(32), lanes), places)
                value = builder.shuffle_vector(*halves, picks)
                at = builder.add(values[2], ir.Constant(ir.IntType(64), half * lanes * BYTES[storage]))
                total = builder.fadd(load(builder, at, storage, own), value)
                store(builder, builder.select(adds, total, value), at, storage)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), emit

    return weave


@lru_cache
def turner(source: str, kind: str, to: str) -> Any:
    """turn(address, bytes, to, to_bytes): 8 rows of 8 numbers become 8 columns."""

    @intrinsic
    def turn(typing: Any, address: Any, row: Any, to_address: Any, to_row: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            own = ir.VectorType(ELEMENTS[kind], 8)
            i64 = ir.IntType(64)

            def at(start: Any, stride: Any, number: int) -> Any:
                return builder.add(start, builder.mul(stride, ir.Constant(i64, number)))

            rows = [load(builder, at(values[0], values[1], i), source, own) for i in range(8)]
            for _ in range(3):  # three times: row i and row i + 4 become rows 2 i and 2 i + 1, interleaved
                turned = []
                for i in range(4):
                    for half in (0, 4):
                        places = [half + j // 2 + j % 2 * 8 for j in range(8)]
                        picks = ir.Constant(ir.VectorType(ir.IntType(32), 8), places)
                        turned.append(builder.shuffle_vector(rows[i], rows[i + 4], picks))
                rows = turned
            for i, value in enumerate(rows):
                store(builder, value, at(values[2], values[3], i), to)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), emit

    return turn


@intrinsic
def number(typing: Any, address: Any, index: Any) -> Any:
    """A whole number (int64) of a table."""

    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        kind = ir.IntType(64)
        return builder.load(builder.gep(pointer(builder, values[0]), [values[1]], source_etype=kind), typ=kind)

    return types.int64(types.int64, types.int64), emit


@intrinsic
def take(typing: Any, address: Any) -> Any:
    """The next number of a counter that several threads share."""

    def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        kind = ir.IntType(64)
        return builder.atomic_rmw("add", pointer(builder, values[0]), ir.Constant(kind, 1), "monotonic")

    return types.int64(types.int64), emit
