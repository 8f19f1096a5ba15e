"""The user's private folder for what gapstone stores between runs and can compute again."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """`$GAPSTONE_CACHE`, else `$XDG_CACHE_HOME/gapstone`, else `~/.cache/gapstone`; None if the user has no home.

    Relative paths in the two variables are ignored, because gapstone takes no settings from the working folder.
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
