"""Imports Matplotlib with its own defaults. Import this module before Matplotlib.

`./matplotlibrc` is not read: such a file beside the photos could change or prevent a report. If a user's program has
imported Matplotlib before, its settings stay unchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gapstone.runtime.working_folder import import_without

matplotlib: Any = import_without("matplotlibrc", "matplotlib")


@contextmanager
def style(**settings: Any) -> Iterator[None]:
    """Draw with Matplotlib's defaults and these `rcParams`, and restore the caller's settings afterwards.

    >>> with style(**{"svg.fonttype": "none"}):
    ...     figure = Figure()
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield
