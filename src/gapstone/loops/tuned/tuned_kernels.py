"""A tuned kernel: a template with its numbers and words bound into it (`spec.bind(tag)`)."""

from typing import Any

from gapstone.loops.kernel_code import fingerprint
from gapstone.loops.kernels import Description, Kernels


def _described(spec: Any) -> Description:
    tag = fingerprint(type(spec).__module__, repr(spec))
    return Description(f"{type(spec).__name__.lower()}_{tag}", lambda: spec.bind(tag))


kernel: Kernels[Any] = Kernels(_described)
"""kernel(spec): compiled, or loaded, when first asked for."""
