"""Results as pandas frames, and as rows for tables in Markdown and LaTeX."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import pandas as pd

Entry = TypeVar("Entry")
Row = dict[str, Any]


def frame(rows: Iterable[Row], index: str | None = None) -> "pd.DataFrame":
    """The rows as a DataFrame.

    Raises:
        ImportError: without pandas, which gapstone does not need otherwise.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"frames need pandas, which is not installed: pip install pandas ({error})") from error
    made = pandas.DataFrame(list(rows))
    return made if index is None or made.empty else made.set_index(index)


class Entries(Generic[Entry], Sequence[Entry]):
    """Entries of results in their order, by number or by name.

    >>> result.heads["gap"], result.heads[0], len(result.heads)
    >>> result.heads.frame()
    """

    def __init__(self, entries: Mapping[str, Entry], rows: Iterable[Row], kind: str) -> None:
        self._entries, self._rows, self._kind = dict(entries), list(rows), kind

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int | slice):
            return list(self._entries.values())[key]
        if key not in self._entries:
            raise KeyError(f"there is no {self._kind} {key!r}; there are {', '.join(self._entries)}")
        return self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """The names of all entries."""
        return list(self._entries)

    def rows(self) -> list[Row]:
        """A dictionary for each entry, as `frame` has them."""
        return [dict(row) for row in self._rows]

    def frame(self) -> "pd.DataFrame":
        """A row for each entry.

        Raises:
            ImportError: without pandas.
        """
        return frame(self._rows)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or f"no {self._kind}"
