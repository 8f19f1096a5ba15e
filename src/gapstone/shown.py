"""Numbers as people read them."""

from collections.abc import Iterable


def by(size: Iterable[int]) -> str:
    """A size or a shape.

    >>> by((224, 160)), by((2, 3, 224, 160))
    ('224×160', '2×3×224×160')
    """
    return "×".join(map(str, size))
