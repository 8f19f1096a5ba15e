"""Counts what the contract has tried, and prints it at the end of the run."""

from collections import Counter

import pytest

TRIED = Counter()


@pytest.fixture
def tried():
    """`tried["pool x region"] += 1`: printed when the run ends."""
    return TRIED


def pytest_terminal_summary(terminalreporter):
    for what, count in sorted(TRIED.items()):
        terminalreporter.write_line(f"contract: {count:,} {what}")
