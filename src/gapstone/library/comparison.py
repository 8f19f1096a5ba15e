"""`Comparison`: the results of a comparison as an object."""

from pathlib import Path
from typing import Any

from gapstone.comparing.run_comparison import read_results


class Comparison:
    """The results of a comparison.

    >>> result = gs.Comparison.open("runs/flowers")
    >>> result.verdict
    """

    def __init__(self, out: Path, results: dict[str, Any]) -> None:
        self.out, self.results = out, results

    @classmethod
    def open(cls, out: str | Path) -> "Comparison":
        """Open the results in a folder."""
        return cls(Path(out), read_results(Path(out)))

    @property
    def verdict(self) -> str:
        """The result in one short sentence."""
        return str(self.results["verdict"])
