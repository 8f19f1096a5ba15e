"""A kernel: a template (over_places.py, over_windows.py) bound to a pool and to types, compiled, kept on disk.

Numba's disk cache looks at a function's own bytecode, not at what is bound into it: asked for gem in a second process
it once gave the mean. So every kernel has a name of its own, with a hash of all that it is made of.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from types import FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types

from gapstone.loops import kernel_arguments as a
from gapstone.loops import kernel_code, over_places, over_windows, place_blocks, vector_math, vector_memory, vectors
from gapstone.loops.kernel_code import bound, njit
from gapstone.loops.kernels import Description, Kernels
from gapstone.pools.definition import Definition, read_by_backward
from gapstone.pools.digest import digest

LANES = {"f32": 32, "f64": 16, "i64": 16}
LEAST_INTEGER = {"u8": 0, "i8": -(2**7), "i16": -(2**15), "i32": -(2**31), "i64": -(2**63)}
MOST_INTEGER = {"u8": 2**8 - 1, "i8": 2**7 - 1, "i16": 2**15 - 1, "i32": 2**31 - 1, "i64": 2**63 - 1}
COMPUTED = {"f32": "f32", "bf16": "f32", "f16": "f32", "f64": "f64"}


@dataclass(frozen=True)
class KernelKind:
    """All that a kernel is compiled for."""

    template: str
    pool: Definition = field(repr=False)
    x: str  # how x lies in memory: f32, bf16, u8, …
    out: str
    position: str  # how kept positions lie in memory
    keep: tuple[int, ...] = ()  # the parts of the state that are kept
    counted: bool = False  # the part that counts positions is known from the box
    weighted: bool = False
    masked: bool = False
    slope: bool = False
    dx: str = "f32"

    @property
    def computed(self) -> str:
        return COMPUTED.get(self.x, "i64")


def _constants(kinds: list[tuple[str, float]], lanes: int) -> Any:
    """empty(): a state of constants."""
    result = types.Tuple([vectors.Vector(kind, lanes) for kind, _ in kinds])

    @numba.extending.intrinsic
    def constants(typing: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            parts = [vectors.constant(ir.VectorType(vectors.ELEMENTS[kind], lanes), value) for kind, value in kinds]
            return context.make_tuple(builder, result, parts)

        return result(), emit

    return constants


def _states(kinds: list[str], lanes: int) -> tuple[Any, Any, int]:
    """save(address, state), restore(address), and the bytes of a state in scratch."""
    result = types.Tuple([vectors.Vector(kind, lanes) for kind in kinds])
    stride = 8 * lanes * 2  # twice: rotate() writes every part a second time behind itself
    i64 = ir.IntType(64)

    def at(builder: Any, address: Any, part: int) -> Any:
        return builder.inttoptr(builder.add(address, ir.Constant(i64, part * stride)), ir.PointerType())

    @numba.extending.intrinsic
    def save(typing: Any, address: Any, state: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            for part in range(len(kinds)):
                builder.store(builder.extract_value(values[1], part), at(builder, values[0], part), align=4)
            return context.get_dummy_value()

        return types.void(address, state), emit

    @numba.extending.intrinsic
    def restore(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            parts = [
                builder.load(at(builder, values[0], part), align=4, typ=ir.VectorType(vectors.ELEMENTS[kind], lanes))
                for part, kind in enumerate(kinds)
            ]
            return context.make_tuple(builder, result, parts)

        return result(address), emit

    @numba.extending.intrinsic
    def rotate(typing: Any, address: Any, shift: Any) -> Any:
        """Move the lanes of a saved state: lane l becomes what lane l + shift was."""

        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            for part, kind in enumerate(kinds):
                size = vectors.BYTES[kind]
                vector = ir.VectorType(vectors.ELEMENTS[kind], lanes)
                first = at(builder, values[0], part)
                value = builder.load(first, align=4, typ=vector)
                begin = builder.ptrtoint(first, i64)
                second = builder.inttoptr(builder.add(begin, ir.Constant(i64, size * lanes)), ir.PointerType())
                builder.store(value, second, align=4)
                moved = builder.add(begin, builder.mul(values[1], ir.Constant(i64, size)))
                value = builder.load(builder.inttoptr(moved, ir.PointerType()), align=4, typ=vector)
                builder.store(value, first, align=4)
            return context.get_dummy_value()

        return types.void(address, shift), emit

    return save, (restore, rotate), stride * len(kinds)


def on_vectors(kind: KernelKind) -> Definition:
    """The kind's pool with its functions bound to the maths of vectors."""
    numbers: dict[str, Callable[[float], Any]] = {"f32": np.float32, "f64": np.float64, "i64": _whole}
    return kind.pool.bind(vector_math, numbers[kind.computed])


def _whole(value: float) -> Any:
    """Infinities only begin a state, and there they are the ends of the type."""
    return value if abs(value) == inf else np.int64(value)


def empty_of(pool: Definition, kind: KernelKind) -> list[tuple[str, float]]:
    """The empty state's numbers, each with what it is computed with."""
    made: list[tuple[str, float]] = []
    for part, value in enumerate(pool.empty):
        if pool.positional and part == 1:
            # where nobody asks for positions all are 0, and LLVM drops them: 1.5-2x faster
            made.append(("i32", 2**31 - 1 if kind.keep else 0))
        elif kind.computed == "i64" and value in (-inf, inf):
            made.append(("i64", LEAST_INTEGER[kind.x] if value < 0 else MOST_INTEGER[kind.x]))
        else:
            made.append((kind.computed, int(value) if kind.computed == "i64" else float(np.float32(value))))
    return made


def _missing(*_: Any) -> Any:
    raise NotImplementedError


def _pool_functions(pool: Definition, kind: KernelKind, k: Any) -> None:
    """The pool's functions, all with the same arguments: x, a position, an answer, a state, a tuple of parameters."""
    lanes = k.V
    as_state = vectors.state_maker(kind.computed, lanes, (1,) if pool.positional else ())
    as_sums = vectors.state_maker(kind.computed, lanes, ())
    full = k.full
    lift, combine, finish, share = (njit(f, k.TAG) for f in (pool.lift, pool.combine, pool.finish, pool.share))
    key, terms, slope = (njit(f, k.TAG) if f else _missing for f in (pool.key, pool.terms, pool.slope))
    if pool.positional:
        keep, nowhere = bool(kind.keep), k.full_position

        def lifted(x: Any, i: Any, p: Any) -> Any:
            return as_state(lift(x, i if keep else nowhere(0), *p))

        def shared(x: Any, i: Any, out: Any, state: Any, p: Any) -> Any:
            return full(share(*((x, i, out) + state + p)))  # noqa: RUF005  (Numba knows tuples by +)

    else:

        def lifted(x: Any, i: Any, p: Any) -> Any:
            return as_state(lift(x, *p))

        def shared(x: Any, i: Any, out: Any, state: Any, p: Any) -> Any:
            return full(share(*((x, out) + state + p)))  # noqa: RUF005

    def merged(state: Any, other: Any, p: Any) -> Any:
        return as_state(combine(*(state + other + p)))

    def answer(state: Any, p: Any) -> Any:
        return full(finish(*(state + p)))

    def keyed(x: Any, p: Any) -> Any:
        return key(x, *p)

    def plain_key(x: Any, p: Any) -> Any:
        return x

    def termed(x: Any, reference: Any, p: Any) -> Any:
        return as_sums(terms(x, reference, *p))

    def sloped(x: Any, i: Any, out: Any, state: Any, p: Any) -> Any:
        return full(slope(*((x, out) + state + p)))  # noqa: RUF005

    functions: dict[str, Callable[..., Any]] = {"lifted": lifted, "shared": shared, "merged": merged, "answer": answer,
                 "keyed": keyed if pool.key else plain_key, "termed": termed, "sloped": sloped}  # fmt: skip
    for name, function in functions.items():
        setattr(k, name, njit(function, k.TAG))


def _parameters(pool: Definition, k: Any, names: dict[str, Any]) -> None:
    if not pool.parameters:

        def none(args: Any, image: Any, c: Any, lanes: Any, line: Any) -> Any:
            return ()

        def none_of(args: Any, image: Any, c: Any) -> Any:
            return ()

        k.parameters, k.parameters_of = njit(none, k.TAG), njit(none_of, k.TAG)
        return
    number, read, read_one, write, full, size, lanes_in_all = (
        vector_memory.number, k.read, k.read_one, k.write, k.full, k.SIZE, k.V
    )  # fmt: skip
    address, per_image = a.PARAMETER, a.PARAMETER_IMAGE

    def parameters(args: Any, image: Any, c: Any, lanes: Any, line: Any) -> Any:
        at = number(args, address) + image * number(args, per_image) + c * size
        if lanes == lanes_in_all:
            return (read(at),)
        for lane in range(lanes):
            write(line + lane * size, read_one(at + lane * size))
        for lane in range(lanes, lanes_in_all):
            write(line + lane * size, read_one(at))
        return (read(line),)

    def parameters_of(args: Any, image: Any, c: Any) -> Any:
        return (full(read_one(number(args, address) + image * number(args, per_image) + c * size)),)

    k.parameters, k.parameters_of = njit(parameters, k.TAG), njit(parameters_of, k.TAG)


def _in_memory(k: Any, lanes: int, storage: str, own: str, functions: dict[str, Any]) -> dict[str, Any]:
    """The functions that bring vectors to memory and back, for numbers that lie there as `storage`."""
    there = ModuleType("there")
    vars(there).update(
        V=lanes, BYTES=vectors.BYTES[storage], OWN=vectors.BYTES[own], write=k.write,
        write_there=vector_memory.writer(storage),
        read_there=vector_memory.reader(storage, own, lanes),
        read_8_there=vector_memory.reader(storage, own, 8),
        read_one_there=vector_memory.reader(storage, own, 0),
        read_own=vector_memory.reader(own, own, lanes),
        read_8_own=vector_memory.reader(own, own, 8),
        read_one_own=vector_memory.reader(own, own, 0),
    )  # fmt: skip
    made = {}
    for name, function in functions.items():
        made[name] = njit(bound(function, {**function.__globals__, "k": there}), f"{storage}_{own}_{k.TAG}")
    return made


def bind(kind: KernelKind) -> FunctionType:
    """The template with all names bound."""
    windows = kind.template.startswith("windows")
    source = over_windows if windows else over_places
    pool = on_vectors(kind)
    k: Any = ModuleType("k")
    k.TAG = fingerprint(kind)
    empty = empty_of(pool, kind)
    _vectors(k, kind, pool, empty)
    names: dict[str, Any] = {**(vars(over_windows) if windows else {**vars(place_blocks), **vars(over_places)}), "k": k}
    names.update(
        TERMS=pool.terms is not None, MEAN=pool.reference == "mean", WEIGHTED=kind.weighted, MASKED=kind.masked,
        COUNTED=kind.counted, SLOPE=kind.slope, POSITIONAL=pool.positional,
    )  # fmt: skip
    read = read_by_backward(kind.pool, kind.slope)
    names.update(NEEDS_X="x" in read, NEEDS_OUT="out" in read)
    names.update({f"KEEP{part}": part in kind.keep for part in range(4)})
    _pool_functions(pool, kind, k)
    _parameters(pool, k, names)
    _stores(k, kind, [c for c, _ in empty], windows)
    for helper in source.HELPERS:
        names[helper.__name__] = njit(bound(helper, names), k.TAG, inline=False)
    name = f"{kind.template}_{kind.pool.name}_{kind.x}_{k.TAG}"
    return bound(getattr(source, kind.template), names, name)


def _vectors(k: Any, kind: KernelKind, pool: Definition, empty: list[tuple[str, float]]) -> None:
    """The numbers that are known, and the vectors' functions."""
    computed, lanes = kind.computed, LANES[kind.computed]
    k.V, k.HALF, k.SIZE, k.ITEM, k.DX_ITEM = (
        lanes, lanes // 2, vectors.BYTES[computed], vectors.BYTES[kind.x], vectors.BYTES[kind.dx]
    )  # fmt: skip
    k.BLOCK, k.PIECE = 128, 8
    k.full, k.counting = vectors.lanes_of(computed, lanes)
    k.full_position, _ = vectors.lanes_of("i32", lanes)
    k.empty = _constants(empty, lanes)
    k.no_sums = _constants([(c, 0) for c, _ in empty[1:]], lanes)
    k.save, (k.restore, k.rotate), k.STATE_BYTES = _states([c for c, _ in empty], lanes)
    k.chosen, k.word = vectors.chosen, vector_math
    k.replace_count = vectors.replacer(-1 if pool.count is None else pool.count)
    k.replace0, k.replace1, k.replace2, k.replace3 = (vectors.replacer(part) for part in range(4))
    k.read, k.read_one = vector_memory.reader(computed, computed, lanes), vector_memory.reader(computed, computed, 0)
    k.write = _writer_of_own()
    k.read_x, k.read_one_x = vector_memory.reader(kind.x, computed, lanes), vector_memory.reader(kind.x, computed, 0)
    k.read_8_x = vector_memory.reader(kind.x, computed, 8)
    k.read_dx, k.read_one_dx = (
        vector_memory.reader(kind.dx, computed, lanes),
        vector_memory.reader(kind.dx, computed, 0),
    )
    k.write_dx = vector_memory.writer(kind.dx)
    k.turn_in = vector_memory.turner(kind.x, computed, computed)
    k.turn_out = vector_memory.turner(computed, computed, kind.dx)
    k.read_mask = vector_memory.mask_reader(lanes)
    k.split = vector_memory.pair_splitter(kind.x, computed, lanes // 2)
    k.weave = vector_memory.pair_weaver(computed, kind.dx, lanes // 2)
    k.split_8, k.weave_8 = (
        vector_memory.pair_splitter(kind.x, computed, 8),
        vector_memory.pair_weaver(computed, kind.dx, 8),
    )


def _stores(k: Any, kind: KernelKind, own_kinds: list[str], windows: bool) -> None:
    """The functions that bring answers, gradients and saved parts of the state to memory and back."""
    computed, lanes = kind.computed, LANES[kind.computed]
    put, get = (
        (over_windows.put_rows, over_windows.get_rows) if windows else (place_blocks.put_lanes, place_blocks.get_lanes)
    )
    prefix = "_rows" if windows else ""
    stores = {"out": (kind.out, computed), "grad": (kind.out, computed)}
    for part in kind.keep:
        stores[f"kept{part}"] = (kind.position if own_kinds[part] == "i32" else own_kinds[part], own_kinds[part])
        setattr(k, f"KEPT{part}_ITEM", vectors.BYTES[stores[f"kept{part}"][0]])
        setattr(k, f"KEPT{part}_OWN", vectors.BYTES[own_kinds[part]])
        setattr(k, f"read_kept{part}", vector_memory.reader(own_kinds[part], own_kinds[part], lanes))
    k.OUT_ITEM = k.GRAD_ITEM = vectors.BYTES[kind.out]
    for what, (storage, own) in stores.items():
        made = _in_memory(k, lanes, storage, own, {"put": put, "get": get})
        setattr(k, f"put{prefix}_{what}", made["put"])
        setattr(k, f"get{prefix}_{what}", made["get"])
        setattr(k, f"one_{what}", vector_memory.reader(storage, own, 0))


@lru_cache
def _writer_of_own() -> Any:
    """write(address, value): numbers as they are computed with."""

    @numba.extending.intrinsic
    def write(typing: Any, address: Any, value: Any) -> Any:
        scalar = value.kind if isinstance(value, vectors.Vector) else {v: n for n, v in vectors.SCALARS.items()}[value]

        def emit(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            pointer = builder.inttoptr(values[0], ir.PointerType())
            builder.store(values[1], pointer, align=vectors.BYTES[scalar])
            return context.get_dummy_value()

        return types.void(types.int64, value), emit

    return write


def fingerprint(kind: KernelKind) -> str:
    """Of all that a kernel is made of: its templates, its pool's functions, and what it is compiled for."""
    return kernel_code.fingerprint(__name__, digest(kind.pool) or f"in memory {id(kind.pool)}", repr(kind))


def _described(kind: KernelKind) -> Description:
    name = f"{kind.template}_{kind.pool.name}_{kind.x}_{fingerprint(kind)}"
    return Description(name, lambda: bind(kind), on_disk=digest(kind.pool) is not None)


kernel: Kernels[KernelKind] = Kernels(_described)
"""kernel(kind): compiled, or loaded, when first asked for."""
