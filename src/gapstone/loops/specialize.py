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
from gapstone.loops.memory_format import VECTOR_BYTES
from gapstone.pools.definition import Definition, read_by_backward
from gapstone.pools.digest import digest

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

    @property
    def lanes(self) -> int:
        return VECTOR_BYTES // vectors.BYTES[self.computed]


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


@lru_cache
def _states(kinds: tuple[str, ...], lanes: int) -> tuple[Any, Any, int]:
    """save(address, state), restore(address), and the bytes of a state in scratch."""
    result = types.Tuple([vectors.Vector(kind, lanes) for kind in kinds])
    stride = 8 * lanes * 2  # twice: rotate() writes every part a second time behind itself
    i64 = ir.IntType(64)

    def at(builder: Any, address: Any, part: int) -> Any:
        return vectors.pointer(builder, builder.add(address, ir.Constant(i64, part * stride)))

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
                second = vectors.pointer(builder, builder.add(begin, ir.Constant(i64, size * lanes)))
                builder.store(value, second, align=4)
                moved = builder.add(begin, builder.mul(values[1], ir.Constant(i64, size)))
                value = builder.load(vectors.pointer(builder, moved), align=4, typ=vector)
                builder.store(value, first, align=4)
            return context.get_dummy_value()

        return types.void(address, shift), emit

    return save, (restore, rotate), stride * len(kinds)


@lru_cache  # else each kernel of a pool compiles its functions anew
def on_vectors(pool: Definition, computed: str) -> Definition:
    """The pool with its functions bound to the maths of vectors."""
    numbers: dict[str, Callable[[float], Any]] = {"f32": np.float32, "f64": np.float64, "i64": _whole}
    return pool.bind(vector_math, numbers[computed])


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
            limits = np.iinfo("uint8" if kind.x == "u8" else f"int{8 * vectors.BYTES[kind.x]}")
            made.append(("i64", limits.min if value < 0 else limits.max))
        else:
            made.append((kind.computed, int(value) if kind.computed == "i64" else float(np.float32(value))))
    return made


def _missing(*_: Any) -> Any:
    raise NotImplementedError


def _pool_functions(pool: Definition, kind: KernelKind, k: Any) -> None:
    """The pool's functions, all with the same arguments: x, a position, an answer, a state, a tuple of parameters."""
    as_state = vectors.state_maker(kind.computed, k.V, (1,) if pool.positional else ())
    as_sums = vectors.state_maker(kind.computed, k.V, ())
    full = k.full
    lift, combine, finish, share = (njit(f) for f in (pool.lift, pool.combine, pool.finish, pool.share))
    key, terms, slope = (njit(f) if f else _missing for f in (pool.key, pool.terms, pool.slope))
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
        setattr(k, name, njit(function))


def _parameters(pool: Definition, k: Any) -> None:
    if not pool.parameters:

        def none(args: Any, image: Any, c: Any, lanes: Any, line: Any) -> Any:
            return ()

        def none_of(args: Any, image: Any, c: Any) -> Any:
            return ()

        k.parameters, k.parameters_of = njit(none), njit(none_of)
        return
    number, read, read_one, write, full = vector_memory.number, k.read, k.read_one, k.write, k.full
    size, lanes_in_all = k.SIZE, k.V
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

    k.parameters, k.parameters_of = njit(parameters), njit(parameters_of)


def chain(functions: list[Any]) -> Any:
    """One function of (value, *rest): calls each in turn, with what the one before it returned."""

    def unchanged(value: Any, *rest: Any) -> Any:
        return value

    made = njit(unchanged)
    for function in reversed(functions):
        made = njit(_then(function, made))
    return made


def _then(first: Any, second: Any) -> Callable[..., Any]:
    def both(value: Any, *rest: Any) -> Any:
        return second(first(value, *rest), *rest)

    return both


def bind(kind: KernelKind) -> FunctionType:
    """The template with all names bound."""
    windows = kind.template.startswith("windows")
    source = over_windows if windows else over_places
    pool = on_vectors(kind.pool, kind.computed)
    k: Any = ModuleType("k")
    empty = empty_of(pool, kind)
    _vectors(k, kind, pool, empty)
    read = read_by_backward(kind.pool, kind.slope)
    names: dict[str, Any] = {
        **vars(place_blocks), **vars(source), "k": k, "TERMS": pool.terms is not None,
        "MEAN": pool.reference == "mean", "WEIGHTED": kind.weighted, "MASKED": kind.masked, "COUNTED": kind.counted,
        "SLOPE": kind.slope, "NEEDS_X": "x" in read, "NEEDS_OUT": "out" in read,
    }  # fmt: skip
    _pool_functions(pool, kind, k)
    _parameters(pool, k)
    if windows:
        _slots(k, kind, [c for c, _ in empty], names["NEEDS_OUT"])
        for way, item in (("fill", k.ITEM), ("spill", k.DX_ITEM)):
            row = njit(bound(names[f"{way}_row"], names), inline=False)
            rows = bound(over_windows.move_rows, {**names, "move_row": row, "ITEM": item})
            names[f"{way}_rows"] = njit(rows, inline=False)
    else:
        _stores(k, kind, [c for c, _ in empty])
    for helper in (*source.INLINED, *source.HELPERS):
        names[helper.__name__] = njit(bound(helper, names), inline=helper in source.INLINED)
    name = f"{kind.template}_{kind.pool.name}_{kind.x}_{fingerprint(kind)}"
    return bound(getattr(source, kind.template), names, name)


def _vectors(k: Any, kind: KernelKind, pool: Definition, empty: list[tuple[str, float]]) -> None:
    """The numbers that are known, and the vectors' functions."""
    computed, lanes = kind.computed, kind.lanes
    k.V, k.HALF, k.BLOCK, k.PIECE = lanes, lanes // 2, 128, 8
    k.SIZE, k.ITEM, k.DX_ITEM = (vectors.BYTES[name] for name in (computed, kind.x, kind.dx))
    k.full, k.counting = vectors.lanes_of(computed, lanes)
    k.full_position, _ = vectors.lanes_of("i32", lanes)
    k.empty = _constants(empty, lanes)
    k.no_sums = _constants([(c, 0) for c, _ in empty[1:]], lanes)
    k.save, (k.restore, k.rotate), k.STATE_BYTES = _states(tuple(c for c, _ in empty), lanes)
    k.chosen, k.word = vectors.chosen, vector_math
    k.replace_count = vectors.replacer(-1 if pool.count is None else pool.count)
    reader, writer = vector_memory.reader, vector_memory.writer
    k.read, k.read_one, k.write = reader(computed, computed, lanes), reader(computed, computed, 0), writer()
    k.read_x, k.read_one_x, k.read_8_x = (reader(kind.x, computed, n) for n in (lanes, 0, 8))
    k.read_dx, k.read_one_dx = reader(kind.dx, computed, lanes), reader(kind.dx, computed, 0)
    k.write_dx = writer(kind.dx)
    k.turn_in = vector_memory.turner(kind.x, computed, computed)
    k.turn_out = vector_memory.turner(computed, computed, kind.dx)
    k.read_mask = vector_memory.mask_reader(lanes)
    k.split, k.split_8 = (vector_memory.pair_splitter(kind.x, computed, n) for n in (lanes // 2, 8))
    k.weave, k.weave_8 = (vector_memory.pair_weaver(computed, kind.dx, n) for n in (lanes // 2, 8))


def _stored(kind: KernelKind, computed_kinds: list[str], lanes: int) -> dict[str, Any]:
    """For the answer, its gradient, and each saved part of the state: what brings it to memory and back."""
    stored = {"out": (a.OUT, kind.out, kind.computed), "grad": (a.GRAD, kind.out, kind.computed)}
    for part in kind.keep:
        computed = computed_kinds[part]
        stored[f"part{part}"] = a.KEPT0 + part, kind.position if computed == "i32" else computed, computed
    made: dict[str, Any] = {}
    for what, (address, storage, computed) in stored.items():
        k: Any = ModuleType(what)
        k.ADDRESS, k.BYTES, k.OWN, k.V = address, vectors.BYTES[storage], vectors.BYTES[computed], lanes
        k.write, k.write_there = vector_memory.writer(), vector_memory.writer(storage)
        k.read_there, k.read_one_there = (vector_memory.reader(storage, computed, n) for n in (lanes, 0))
        k.read_own, k.read_one_own = (vector_memory.reader(computed, computed, n) for n in (lanes, 0))
        k.full, _ = vectors.lanes_of(computed, lanes)
        if what.startswith("part"):
            k.PART = address - a.KEPT0
            k.replace = vectors.replacer(k.PART)
        k.STORAGE, k.COMPUTED = storage, computed
        made[what] = k
    return made


def _bound_to(k: Any, *functions: Any) -> list[Any]:
    return [njit(bound(function, {**function.__globals__, "k": k})) for function in functions]


def _stores(k: Any, kind: KernelKind, computed_kinds: list[str]) -> None:
    """Over lists of positions: what is stored goes straight to memory."""
    b, parts = place_blocks, []
    for what, stored in _stored(kind, computed_kinds, k.V).items():
        stored.put, stored.get, stored.get_one = _bound_to(stored, b.put_lanes, b.get_lanes, b.get_one)
        if what.startswith("part"):
            parts.append(_bound_to(stored, b.put_part, b.get_part, b.get_one_part))
        else:
            vars(k).update({f"put_{what}": stored.put, f"get_{what}": stored.get, f"one_{what}": stored.get_one})
    puts, gets, ones = zip(*parts, strict=True) if parts else ((), (), ())
    k.put_parts, k.get_parts, k.one_parts = (chain(list(each)) for each in (puts, gets, ones))


def _slots(k: Any, kind: KernelKind, computed_kinds: list[str], needs_out: bool) -> None:
    """Over windows: what is stored waits in its slot of scratch until its rows are complete."""
    w, forward = over_windows, kind.template == "windows_forward"
    k.copy_x = _copier(kind.x, kind.computed, kind.computed, k.V)
    rows: list[Any] = []
    saves, restores = [], []
    for what, stored in _stored(kind, computed_kinds, k.V).items():
        if what.startswith("part"):
            stored.SLOT = stored.PART + 1
            save, restore = _bound_to(stored, w.save_part, w.restore_part)
            saves.append(save)
            restores.append(restore)
        elif forward == (what == "out"):
            stored.SLOT = 0
        elif forward or not needs_out:
            continue
        else:
            stored.SLOT = w.OUT_SLOT
        computed, storage = stored.COMPUTED, stored.STORAGE
        stored.copy_out = _copier(computed, storage, computed, k.V)
        stored.copy_in = _copier(storage, computed, computed, k.V)
        rows += _bound_to(stored, w.put_rows if forward else w.get_rows)
    k.put_all = k.get_all = chain(rows)
    k.save_parts, k.restore_parts = chain(saves), chain(restores)


def _copier(source: str, to: str, computed: str, lanes: int) -> Any:
    """over_windows.copy_row from one type in memory to another."""
    k: Any = ModuleType("k")
    k.V, k.FROM, k.TO, k.write = lanes, vectors.BYTES[source], vectors.BYTES[to], vector_memory.writer(to)
    k.read, k.read_8, k.read_one = (vector_memory.reader(source, computed, n) for n in (lanes, 8, 0))
    return njit(bound(over_windows.copy_row, {**vars(over_windows), "k": k}), inline=False)


def fingerprint(kind: KernelKind) -> str:
    """Of all that a kernel is made of: its templates, its pool's functions, and what it is compiled for."""
    return kernel_code.fingerprint(__name__, digest(kind.pool) or f"in memory {id(kind.pool)}", repr(kind))


def _described(kind: KernelKind) -> Description:
    name = f"{kind.template}_{kind.pool.name}_{kind.x}_{fingerprint(kind)}"
    return Description(name, lambda: bind(kind), on_disk=digest(kind.pool) is not None)


kernel: Kernels[KernelKind] = Kernels(_described)
"""kernel(kind): compiled, or loaded, when first asked for."""
