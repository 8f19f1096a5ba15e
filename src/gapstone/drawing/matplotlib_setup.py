"""Matplotlib as gapstone uses it: its own defaults, and what each chart sets. Import this file before Matplotlib.

`./matplotlibrc` is not read: such a file beside the photos, of whatever content, would decide how a report looks, or
that there is none. Where a user's own program has imported Matplotlib before, its settings stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gapstone.runtime.working_folder import import_without

matplotlib: Any = import_without("matplotlibrc", "matplotlib")


@contextmanager
def style(**settings: Any) -> Iterator[None]:
    """Draw with Matplotlib's defaults and these `rcParams`, whatever is set elsewhere, and set them back.

    >>> with style(**{"svg.fonttype": "none"}):
    ...     figure = Figure()
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield
