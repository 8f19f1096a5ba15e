"""Where gapstone keeps, between runs, what can be computed again: a private folder of the user's own."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """`$GAPSTONE_CACHE`, else `$XDG_CACHE_HOME/gapstone`, else `~/.cache/gapstone`; None for a user without a home.

    Relative paths in the two variables are ignored: the working folder configures nothing.
    """
    if (own := os.environ.get("GAPSTONE_CACHE")) and os.path.isabs(own):
        return Path(own)
    if (shared := os.environ.get("XDG_CACHE_HOME")) and os.path.isabs(shared):
        return Path(shared) / "gapstone"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ".cache" / "gapstone" if home.is_absolute() else None
