"""Entries of results by number and by name, and as pandas frames."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

if TYPE_CHECKING:
    import pandas as pd


class HasRow(Protocol):
    """What a table can list."""

    def row(self) -> dict[str, Any]:
        """Its cells by the names of their columns."""
        ...


Entry = TypeVar("Entry", bound=HasRow)


class Entries(Sequence[Entry], Generic[Entry]):
    """Entries of results in their order, by number or by name.

    Examples:
        >>> result.heads["gap"], result.heads[0], len(result.heads)
        >>> [head.accuracy.mean for head in result.heads]
        >>> result.heads.frame()
    """

    def __init__(self, entries: Mapping[str, Entry] | Sequence[tuple[str, Entry]], kind: str) -> None:
        self._named = list(entries.items() if isinstance(entries, Mapping) else entries)
        self._first = dict(reversed(self._named))  # of several of one name
        self._kind = kind

    @overload
    def __getitem__(self, key: int | str) -> Entry: ...
    @overload
    def __getitem__(self, key: slice) -> list[Entry]: ...
    def __getitem__(self, key: int | str | slice) -> Entry | list[Entry]:
        if not isinstance(key, str):
            return [entry for _, entry in self._named][key]
        if key not in self._first:
            raise KeyError(f"there is no {self._kind} {key!r}; there are {', '.join(self.names()) or 'none'}")
        return self._first[key]

    def __len__(self) -> int:
        return len(self._named)

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entry in self._named)

    def names(self) -> list[str]:
        """The names of all entries."""
        return [name for name, _ in self._named]

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for each entry, with the columns of `frame`."""
        return [entry.row() for entry in self]

    def frame(self) -> "pd.DataFrame":
        """A pandas DataFrame of a row for each entry.

        Examples:
            >>> result.heads.frame().set_index("head").sort_values("accuracy")

        Raises:
            ImportError: pandas is not installed.
        """
        return pandas().DataFrame(self.rows())

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or f"no {self._kind}"


def pandas() -> Any:
    """pandas, which nothing else of gapstone needs. Raises ImportError where it is not installed."""
    try:
        import pandas as found
    except ImportError as error:
        raise ImportError(f"a DataFrame needs pandas, which is not installed: pip install pandas ({error})") from error
    return found
