"""The console that gapstone prints on: it reads no text as markup and escapes control characters.

A caller that puts a name into a sentence passes it through `gapstone.console.formatting.display`, which keeps it on one
line. `Terminal` escapes whatever a caller missed, after rich has laid out the text and before it is written: only
rich's own sequences (colours, the cursor of a bar) reach the terminal.
"""

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from gapstone.console.formatting import lines


class Terminal(Console):
    """A rich console for foreign text: without markup, emoji codes and highlighting."""

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)

    last = time.monotonic()
    """The time of the last output on any `Terminal`; before any output, the time of the import."""

    def print(self, *objects: Any, **options: Any) -> None:
        Terminal.last = time.monotonic()
        super().print(*objects, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text == "\n" or (text.isascii() and text.isprintable()):
                yield segment
            else:
                yield Segment(lines(text), segment.style)
