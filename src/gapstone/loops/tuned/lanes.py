"""The vocabulary of the tuned kernels: what they do with sixteen float32 (or 64 bytes) at once.

`Lanes` writes LLVM's instructions, as formulas; `words` wraps them as functions that a kernel calls. A mask is a vector
of bits; a masked load touches no memory where the mask is false, and gives `blank` there (max: −∞, mean: 0).
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gapstone.loops import vector_memory, vectors
from gapstone.loops.vectors import BYTES, Vector, constant, splat

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
ELEMENTS = {"f32": ir.FloatType(), "i8": I8, "u8": I8}
LEAST = {"f32": -inf, "i8": -128, "u8": 0}
FAST = ("contract", "nsz")
# Numba's names for integers of a vector of bytes
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
        raw = vector_memory.in_memory(self.storage, wanted)
        pointer = self.b.inttoptr(address, ir.PointerType())
        if mask is None:
            value = self.b.load(pointer, align=BYTES[self.storage], typ=raw)
            return vector_memory.widen(self.b, value, self.storage, wanted)
        direct = raw == wanted
        other = self.blank(lanes) if direct else constant(raw, 0)
        value = self._masked("load", raw, raw, [pointer, mask, other])
        if direct:
            return value
        return self.b.select(mask, vector_memory.widen(self.b, value, self.storage, wanted), self.blank(lanes))

    def store(self, value: Any, address: Any, mask: Any = None, storage: str | None = None) -> None:
        narrow = vector_memory.narrow(self.b, value, storage or self.storage)
        pointer = self.b.inttoptr(address, ir.PointerType())
        if mask is None:
            self.b.store(narrow, pointer, align=BYTES[storage or self.storage])
        else:
            self._masked("store", narrow.type, ir.VoidType(), [narrow, pointer, mask])

    def _masked(self, what: str, raw: Any, result: Any, values: list[Any]) -> Any:
        element = {"float": "f32"}.get(str(raw.element), str(raw.element))
        name = f"llvm.masked.{what}.v{raw.count}{element}.p0"
        kind = ir.FunctionType(result, [value.type for value in values])
        return self.b.call(vectors.declared(self.b, kind, name), values)

    def prefetch(self, address: Any, write: bool = False) -> None:
        """Into the second cache, for what comes next."""
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), I32, I32, I32])
        function = vectors.declared(self.b, kind, "llvm.prefetch.p0")
        self.b.call(
            function, [self.b.inttoptr(address, ir.PointerType()), *(ir.Constant(I32, n) for n in (int(write), 2, 1))]
        )

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


def word(result: Callable[..., Any], emit: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """A function for kernels: `emit(builder, *values)`, or None where there is nothing to give back."""
    names = ", ".join(f"a{n}" for n in range(len(arguments)))
    sig = result(*arguments)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        made = emit(builder, *values)
        if made is None:
            return context.get_dummy_value()
        return context.make_tuple(builder, signature.return_type, made) if isinstance(made, tuple | list) else made

    space: dict[str, Any] = {"sig": sig, "codegen": codegen}
    exec(
        f"def word(typing{', ' if names else ''}{names}): return sig, codegen", space
    )  # intrinsics need fixed arguments
    return intrinsic(space["word"])


def vector(kind: str, lanes: int) -> Vector:
    return Vector(kind, lanes)


NUMBER = types.int64
