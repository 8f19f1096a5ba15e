"""`strict` makes Pillow refuse truncated files and respect a pixel limit, and collects its warnings.

Three of Pillow's settings are global: warnings, LOAD_TRUNCATED_IMAGES (some libraries set it for the whole process, and
then half of a truncated image is gray) and MAX_IMAGE_PIXELS. `warnings.catch_warnings` is not thread-safe: two
overlapping uses restore each other's state for good. So the first thread that enters changes the settings, the last one
that leaves restores them, and each thread receives only its own warnings.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from PIL import Image, ImageFile

_lock = threading.Lock()
_inside = 0  # number of threads in `strict`
_restore: ExitStack | None = None
_thread = threading.local()


@contextmanager
def strict(max_pixels: int) -> Iterator[list[str]]:
    """Run Pillow strictly; yield a list to which this thread's warnings of Pillow are added as texts."""
    texts: list[str] = []
    _enter(max_pixels)
    outer: list[str] | None = getattr(_thread, "warnings", None)
    _thread.warnings = texts
    try:
        yield texts
    finally:
        _thread.warnings = outer
        _leave()


def _enter(max_pixels: int) -> None:
    global _inside, _restore
    with _lock:
        if _inside == 0:
            _restore = _change_settings()
        _inside += 1
        # Pillow raises beyond twice its limit: raise that, because `load` checks its own limit exactly
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels if limit is None else max(limit, max_pixels // 2 + 1)


def _leave() -> None:
    global _inside, _restore
    with _lock:
        _inside -= 1
        if _inside == 0 and _restore is not None:
            _restore.close()
            _restore = None


def _change_settings() -> ExitStack:
    stack = ExitStack()
    stack.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    stack.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    stack.enter_context(warnings.catch_warnings())
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    for module in (r"PIL\..*", r"gapstone\.images\..*"):
        warnings.filterwarnings("always", module=module)
    log, silent = logging.getLogger("PIL"), logging.NullHandler()  # without a handler Python prints Pillow's log
    log.addHandler(silent)
    stack.callback(log.removeHandler, silent)
    showwarning = warnings.showwarning

    def collect(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> Any:
        texts: list[str] | None = getattr(_thread, "warnings", None)
        if texts is None:  # a warning of a thread that is not in `strict`
            return showwarning(message, category, filename, lineno, file, line)
        if not issubclass(category, Image.DecompressionBombWarning):
            texts.append(" ".join(str(message).split()))
        return None

    warnings.showwarning = collect
    return stack
