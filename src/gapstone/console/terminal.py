"""The one console that gapstone prints on: text is never read as markup, and no control character gets through.

Names go through `gapstone.console.formatting.display` where they are put into a sentence, which keeps them on one line.
This class escapes what was missed there, after rich has laid out the text and before anything is written: only rich's
own sequences (colours, the cursor of a bar) reach the terminal.
"""

import time
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from gapstone.console.formatting import lines
from gapstone.console.formatting import show_warnings as show_warnings


class Terminal(Console):
    """A rich console for text that others wrote: without markup, emoji codes and highlighting."""

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)

    last = time.monotonic()
    """When anything was printed on any of them; before that, when they were imported."""

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


def write_line(stream: TextIO, text: str) -> None:
    """A message of our own in plain text, with line breaks of its own and nothing else that is not visible."""
    stream.write(lines(text) + "\n")
    stream.flush()
