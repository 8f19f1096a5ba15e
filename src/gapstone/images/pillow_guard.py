"""`with strict(max_pixels) as heard:` Pillow refuses truncated files, respects the limit, and its warnings are kept.

Three of Pillow's switches are global: warnings, LOAD_TRUNCATED_IMAGES (some libraries turn it on for everybody, and
half a picture then comes back gray) and MAX_IMAGE_PIXELS. `warnings.catch_warnings` alone is not safe in threads: two
overlapping uses restore each other's state for good. So the first thread in sets the switches, the last one out
restores them, and each thread hears only its own warnings.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from PIL import Image, ImageFile

_lock = threading.Lock()
_inside = 0
_restore: ExitStack | None = None
_mine = threading.local()


@contextmanager
def strict(max_pixels: int) -> Iterator[list[str]]:
    """Run Pillow strictly; the list yielded fills with the text of its warnings (those of this thread only)."""
    heard: list[str] = []
    _enter(max_pixels)
    before: list[str] | None = getattr(_mine, "heard", None)
    _mine.heard = heard
    try:
        yield heard
    finally:
        _mine.heard = before
        _leave()


def _enter(max_pixels: int) -> None:
    global _inside, _restore
    with _lock:
        if _inside == 0:
            _restore = _set_switches()
        _inside += 1
        # Pillow raises beyond twice its limit. Ours is checked separately, exactly; this one only lets it through.
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels if limit is None else max(limit, max_pixels // 2 + 1)


def _leave() -> None:
    global _inside, _restore
    with _lock:
        _inside -= 1
        if _inside == 0 and _restore is not None:
            _restore.close()
            _restore = None


def _set_switches() -> ExitStack:
    stack = ExitStack()
    stack.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    stack.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    stack.enter_context(warnings.catch_warnings())
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    for module in (r"PIL\..*", r"gapstone\.images\..*"):
        warnings.filterwarnings("always", module=module)
    log, silent = logging.getLogger("PIL"), logging.NullHandler()  # else Python prints Pillow's log where nobody asked
    log.addHandler(silent)
    stack.callback(log.removeHandler, silent)
    shown = warnings.showwarning

    def hear(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> Any:
        mine: list[str] | None = getattr(_mine, "heard", None)
        if mine is None:  # another thread's warning, nothing to do with images
            return shown(message, category, filename, lineno, file, line)
        if not issubclass(category, Image.DecompressionBombWarning):
            mine.append(" ".join(str(message).split()))
        return None

    warnings.showwarning = hear
    return stack
