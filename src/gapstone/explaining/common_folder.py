"""The folder that all pictures of a listing share: printed once, so that names are short."""

import os


def common_folder(folder: str | None, name: str) -> str:
    """Return the deepest folder that holds `name` and everything in `folder`.

        >>> common_folder(common_folder(None, "photos/a/1.jpg"), "photos/b/1.jpg")
        'photos'

    Args:
        folder: The common folder of the names before; None for the first name.
        name: The path of a file.

    Returns:
        The common folder; "" if there is none.
    """
    parent = os.path.dirname(name)
    if folder is None:
        return parent
    if not folder or os.path.isabs(folder) != os.path.isabs(parent):
        return ""
    return os.path.commonpath([folder, parent])


def relative_to(name: str, folder: str | None) -> str:
    """Return `name` relative to `folder`; `name` itself if there is no folder."""
    return os.path.relpath(name, folder) if folder else name
