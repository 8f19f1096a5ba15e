"""A bar while a command imports what it needs; rich itself is imported no earlier than here."""

from contextlib import AbstractContextManager


def loading() -> AbstractContextManager[None]:
    """Show "Loading PyTorch" until the block ends."""
    from gapstone.console.progress import loading as bar  # rich's bars cost `gapstone --help` too much

    return bar()
