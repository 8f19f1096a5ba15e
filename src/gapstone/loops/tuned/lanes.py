"""The instructions of the tuned kernels: what they do with sixteen float32 (or 64 bytes) at once.

`Lanes` writes LLVM's instructions, as formulas; `lowered` wraps them as functions that a kernel calls. A mask is a
vector of bits; a masked load touches no memory where the mask is false, and gives `blank` there (max: −∞, mean: 0).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from types import FunctionType, ModuleType
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gapstone.loops import vector_memory, vectors
from gapstone.loops.kernel_code import bound, namespace, njit
from gapstone.loops.vectors import constant, pointer, splat

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
ELEMENTS = {"f32": ir.FloatType(), "i8": I8, "u8": I8}
LEAST = {"f32": -inf, "i8": -128, "u8": 0}
FAST = ("contract", "nsz")
vectors.ELEMENTS.update(i8=I8, u8=I8)


class Lanes:
    """Instructions on vectors of one kind: float32 (stored as f32, bf16 or f16), or bytes."""

    def __init__(self, builder: Any, storage: str, lanes: int, op: str) -> None:
        self.b, self.storage, self.lanes, self.op = builder, storage, lanes, op
        self.kind = storage if storage in ("u8", "i8") else "f32"
        self.is_float = self.kind == "f32"

    # ---- types and constants

    def vector(self, lanes: int | None = None) -> ir.VectorType:
        return ir.VectorType(ELEMENTS[self.kind], lanes or self.lanes)

    def blank(self, lanes: int | None = None) -> Any:
        """What stands for a place that is not on the map."""
        value = LEAST[self.kind] if self.op == "max" else 0
        return constant(self.vector(lanes), float(value) if self.is_float else value)

    def number(self, value: int) -> ir.Constant:
        return ir.Constant(I64, value)

    # ---- memory

    def load(self, address: Any, mask: Any = None, lanes: int | None = None) -> Any:
        wanted = self.vector(lanes)
        if mask is None:
            return vector_memory.load(self.b, address, self.storage, wanted)
        raw = vector_memory.in_memory(self.storage, wanted)
        direct = raw == wanted
        other = self.blank(lanes) if direct else constant(raw, 0)
        value = self._masked("load", raw, raw, [pointer(self.b, address), mask, other])
        if direct:
            return value
        return self.b.select(mask, vector_memory.widen(self.b, value, self.storage, wanted), self.blank(lanes))

    def store(self, value: Any, address: Any, mask: Any = None, storage: str | None = None) -> None:
        if mask is None:
            vector_memory.store(self.b, value, address, storage or self.storage)
        else:
            narrow = vector_memory.narrow(self.b, value, storage or self.storage)
            self._masked("store", narrow.type, ir.VoidType(), [narrow, pointer(self.b, address), mask])

    def _masked(self, what: str, raw: Any, result: Any, values: list[Any]) -> Any:
        element = {"float": "f32"}.get(str(raw.element), str(raw.element))
        name = f"llvm.masked.{what}.v{raw.count}{element}.p0"
        kind = ir.FunctionType(result, [value.type for value in values])
        return self.b.call(vectors.declared(self.b, kind, name), values)

    def prefetch(self, address: Any, write: bool = False) -> None:
        """Into the second cache, for what comes next."""
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), I32, I32, I32])
        function = vectors.declared(self.b, kind, "llvm.prefetch.p0")
        self.b.call(function, [pointer(self.b, address), *(ir.Constant(I32, n) for n in (int(write), 2, 1))])

    # ---- masks

    def on(self, first: Any, length: Any, lanes: int | None = None) -> Any:
        """Which of the places first, first + 1, … are from 0 to length - 1."""
        lanes = lanes or self.lanes
        counting = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        places = self.b.add(splat(self.b, self.b.trunc(first, I32), lanes), counting)
        return self.b.icmp_unsigned("<", places, splat(self.b, self.b.trunc(length, I32), lanes))

    def shuffle(self, a: Any, b: Any, picks: Sequence[int]) -> Any:
        return self.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), list(picks)))

    def side_by_side(self, a: Any, b: Any) -> Any:
        return self.shuffle(a, b, range(2 * a.type.count))

    # ---- the pool

    def larger(self, x: Any, v: Any) -> Any:
        """x > v, lane by lane."""
        if self.is_float:
            return self.b.fcmp_ordered(">", x, v)
        return (self.b.icmp_unsigned if self.kind == "u8" else self.b.icmp_signed)(">", x, v)

    def combine(self, v: Any, x: Any, exact: bool = False) -> Any:
        if self.op == "mean":
            return self.b.fadd(v, x, flags=FAST)
        if exact:  # NaN wins; three instructions instead of one
            return vectors.call(self.b, "maximum", v, x, flags=("nsz",))
        return self.b.select(self.larger(x, v), x, v)

    def beats(self, x: Any, v: Any, exact: bool) -> Any:
        """Where x takes the place of v, which comes first: where it is larger, or the first NaN."""
        more = self.larger(x, v)
        if not exact:
            return more
        first_nan = self.b.and_(self.b.fcmp_unordered("uno", x, x), self.b.fcmp_ordered("ord", v, v))
        return self.b.or_(more, first_nan)

    def nan(self, a: Any, b: Any) -> Any:
        return self.b.fcmp_unordered("uno", a, b)


def lowered(arguments: Sequence[Any], result: Any, emit: Callable[..., Any]) -> Any:
    """A function for kernels: `emit(builder, *values)` writes it, and returns its value, a tuple's parts, or None."""
    names = ", ".join(f"a{n}" for n in range(len(arguments)))
    sig = result(*arguments)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        value = emit(builder, *values)
        if value is None:
            return context.get_dummy_value()
        return context.make_tuple(builder, signature.return_type, value) if isinstance(value, tuple | list) else value

    space: dict[str, Any] = {"sig": sig, "codegen": codegen}
    exec(f"def lowered(typing, {names}): return sig, codegen", space)  # intrinsics need fixed arguments
    return intrinsic(space["lowered"])


def set_flag(b: Any, address: Any, lanes: Any) -> None:
    """1 at an address where a bit of a mask is set."""
    bits = ir.IntType(lanes.type.count)
    with b.if_then(b.icmp_unsigned("!=", b.bitcast(lanes, bits), ir.Constant(bits, 0)), likely=False):
        b.store(ir.Constant(I64, 1), pointer(b, address))


@dataclass(frozen=True)
class WindowKernel:
    """What a kernel over windows is compiled for."""

    op: str
    storage: str
    kh: int
    kw: int
    sh: int
    sw: int
    exact = False

    @property
    def lanes(self) -> int:
        return 64 if self.storage in ("u8", "i8") else 16

    @property
    def kind(self) -> str:
        """What it computes with."""
        return self.storage if self.storage in ("u8", "i8") else "f32"

    @property
    def notices(self) -> bool:
        """NaN is noticed, where it is not minded."""
        return self.op == "max" and not self.exact and self.kind == "f32"

    def assemble(
        self, template: ModuleType, names: tuple[str, str], numbers: dict[str, Any],
        functions: Callable[[Any, bool], dict[str, Any]], tag: str,
    ) -> FunctionType:  # fmt: skip
        """The template's entry, which calls its part for what lies inside the map (`k.…_inside`) and at its edge.

        `names`: of the entry and the part. `functions(self, edge)`: what both call. `tag`: a hash of all that
        the kernel is made of.
        """
        entry, part = names
        k = namespace(functions(self, False))
        for where in ("inside", "edge"):
            edge = where == "edge"
            space = {**vars(template), **numbers, "k": namespace(functions(self, edge)), "EDGE": edge}
            for helper in vars(template).get("INLINED", ()):
                space[helper.__name__] = njit(bound(helper, space))
            setattr(k, f"{part}_{where}", njit(bound(space[part], space), inline=False))
        name = f"{entry}_{self.op}_{self.storage}_{tag}"
        return bound(vars(template)[entry], {**vars(template), **numbers, "k": k}, name)


NUMBER = types.int64
