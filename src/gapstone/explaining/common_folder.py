"""The folder that all names share: said once, so that the names can be told apart in little space."""

import os


def shared(folder: str | None, name: str) -> str:
    """The folder that holds `name` and all that `folder` holds; None where there is none yet; "" where they share none.

    >>> shared(shared(None, "photos/a/1.jpg"), "photos/b/1.jpg")
    'photos'
    """
    own = os.path.dirname(name)
    if folder is None:
        return own
    if not folder or os.path.isabs(folder) != os.path.isabs(own):
        return ""
    return os.path.commonpath([folder, own])


def within(name: str, folder: str | None) -> str:
    """`name` as seen from that folder."""
    return os.path.relpath(name, folder) if folder else name
