"""`ResultsObject`: what the results of a comparison and of an evaluation have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic

from gapstone.console.formatting import display
from gapstone.library.tables import Entries, Entry


class ResultsObject(ABC, Generic[Entry]):
    """A folder of results and what its JSON says; by name, what was measured of each head or model.

    Args:
        out: The folder of the results.
        results: The content of its JSON file.
    """

    def __init__(self, out: Path, results: dict[str, Any]) -> None:
        self.out, self.results = out, results

    @property
    def verdict(self) -> str:
        """The result in one short sentence."""
        return str(self.results["verdict"])

    @property
    def findings(self) -> list[str]:
        """A sentence for each that differs, and for what holds on moved images and in localisation."""
        return list(self.results["findings"])

    @property
    def remarks(self) -> list[str]:
        """Sentences that whoever reads the numbers must know."""
        return list(self.results["remarks"])

    @property
    def metric(self) -> str:
        """The name of the metric that decides."""
        return str(self.results["metrics"][0]["name"])

    @property
    @abstractmethod
    def _entries(self) -> Entries[Entry]:
        """What was measured of each."""

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries.names()

    def _shown(self, rows: Sequence[Sequence[str]], more: Sequence[str] = ()) -> str:
        """The verdict, a table whose first row has the titles, further lines, and the report."""
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self.verdict, "", *lines, *more, display(self.out / "report.html")])
