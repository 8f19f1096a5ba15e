"""Draws several maps on one page, with one scale and one colour bar: of one picture, or a row per picture."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gapstone.console.formatting import display
from gapstone.drawing import colours, lettering
from gapstone.drawing.captions import Role, Span, caption, remarks
from gapstone.drawing.colourbar import colour_bar
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.overlay import check_fit, overlay, resized, scale_of, underlay
from gapstone.drawing.upsample import How

if TYPE_CHECKING:
    from gapstone.localisation.cam_boxes import Box

INK: dict[Role, tuple[int, int, int]] = {
    "label": (0, 0, 0),
    "plain": (60, 60, 60),
    "for": (176, 74, 0),  # ABOVE, darkened so that small letters are readable on white
    "against": colours.BELOW,
    "note": (0, 0, 0),
}
BESIDE, LISTED = 400, 272  # px: the longest side of a picture in `side_by_side` and in `contact_sheet`
LETTERS = 13
COLUMN = 288  # px: least width of a panel, so that the third line of a caption fits
SMALL = 64  # px: pictures up to this side are enlarged without interpolation
THINNEST = 8  # px: least width of a picture; a strip of 3×2000 px would be less than 1 px wide
GAP, MARGIN = 16, 20
ROWS = 30  # on a page


@dataclass(frozen=True)
class SheetRow:
    """One picture and the classes to show, at the size on the sheet, so that thousands fit into memory.

    ```python
    rows = [SheetRow.of(pixels, evidences[:3], "a.jpg") for …]
    ```
    """

    picture: NDArray[np.uint8]
    evidences: Sequence[Evidence]
    name: str = ""
    boxes: Mapping[int, Sequence["Box"]] = field(default_factory=dict)
    """By class index."""

    @classmethod
    def of(
        cls,
        pixels: NDArray[np.uint8],
        evidences: Sequence[Evidence],
        name: str = "",
        boxes: Mapping[int, Sequence["Box"]] | None = None,
        side: int = LISTED,
    ) -> "SheetRow":
        """Return a row with the picture resized so that its longest side is `side` px.

        Pictures up to `SMALL` px are enlarged by a whole number without interpolation; none gets thinner than
        `THINNEST` px.
        """
        if side < 1:
            raise ValueError(f"side={side}: the longest side of a picture on the sheet, in px")
        picture = underlay(pixels, grey=False)
        for evidence in evidences:
            check_fit(pixels, evidence)
        longest = max(picture.size)
        if longest <= SMALL:
            times = max(1, side // longest)
            picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
        else:
            thinnest = min(THINNEST, side)
            shape = (
                max(thinnest, round(picture.width * side / longest)),
                max(thinnest, round(picture.height * side / longest)),
            )
            picture = picture.resize(shape, Image.Resampling.LANCZOS, reducing_gap=3.0)
        size, (height, width) = (picture.height, picture.width), pixels.shape[:2]
        down, across = size[0] / height, size[1] / width
        return cls(
            np.asarray(picture),
            [resized(e, size) for e in evidences],
            name,
            {
                index: [
                    b._replace(x0=b.x0 * across, y0=b.y0 * down, x1=b.x1 * across, y1=b.y1 * down) for b in class_boxes
                ]
                for index, class_boxes in (boxes or {}).items()
            },
        )


def side_by_side(
    pixels: NDArray[np.uint8],
    evidences: Sequence[Evidence],
    largest: float | None = None,
    alpha: float = colours.STRONGEST,
    how: How = "smooth",
    boxes: Mapping[int, Sequence["Box"]] | None = None,
    *,
    name: str = "",
    grey: bool = True,
    cmap: str | None = None,
    side: int = BESIDE,
) -> Image.Image:
    """Draw a picture, a panel with map and caption for each class beside it, and the colour bar.

    ```python
    side_by_side(pixels, evidences[:3], name="a.jpg").save("a.png")
    ```

    Args as for `overlay`, and:
        evidences: The maps, one panel each.
        largest: The end of the colour bar; by default the largest contribution in these maps.
        boxes: Boxes to draw, by class index.
        name: The caption of the picture.
        side: The longest side of a picture in px.
    """
    row = SheetRow.of(pixels, evidences, name, boxes, side)
    scale = scale_of(largest, evidences)
    return _page([row], scale, alpha, how, grey, cmap, beside=4)


def contact_sheet(
    rows: Sequence[SheetRow],
    largest: float | None = None,
    alpha: float = colours.STRONGEST,
    how: How = "smooth",
    *,
    grey: bool = True,
    cmap: str | None = None,
    per_page: int = ROWS,
) -> Iterator[Image.Image]:
    """Draw a row for each picture with its classes beside it, all on one scale, `per_page` rows per page.

    ```python
    rows = [SheetRow.of(pixels, evidences[:3], name) for pixels, evidences, name in …]
    for number, page in enumerate(contact_sheet(rows), 1):
        page.save(f"maps-{number}.png")
    ```
    """
    if not rows or per_page < 1:
        raise ValueError(f"contact_sheet({len(rows)} rows, per_page={per_page}): at least one of each")
    scale = scale_of(largest, (e for row in rows for e in row.evidences))
    return (
        _page(rows[at : at + per_page], scale, alpha, how, grey, cmap, beside=6) for at in range(0, len(rows), per_page)
    )


@dataclass(frozen=True)
class _Panel:
    image: Image.Image
    lines: Sequence[Sequence[Span]]


def _page(
    rows: Sequence[SheetRow],
    largest: float,
    alpha: float,
    how: How,
    grey: bool,
    cmap: str | None,
    beside: int,
) -> Image.Image:
    """Draw panels in a grid; at most `beside` panels stand beside a picture, the others in further lines."""
    lines = []
    for row in rows:
        panels = [
            _Panel(
                overlay(row.picture, e, largest, alpha, how, row.boxes.get(e.index, ()), grey=grey, cmap=cmap),
                wrapped(caption(e), max(COLUMN, row.picture.shape[1])),
            )
            for e in row.evidences
        ]
        first: _Panel | None = _Panel(Image.fromarray(row.picture), [[Span(display(row.name), "label")]])
        share = per_line(len(panels), beside)
        for at in range(0, max(1, len(panels)), share):
            lines.append([first, *panels[at : at + share]])
            first = None
    column = max(COLUMN, *(p.image.width for line in lines for p in line if p))
    wide = max(len(line) for line in lines)
    bar = colour_bar(largest, alpha, cmap)
    evidences = list(chain.from_iterable(row.evidences for row in rows))
    width = max(2 * MARGIN + wide * column + (wide - 1) * GAP, bar.width + 2 * MARGIN)
    notes = [part for text in remarks(evidences) for part in lettering.wrap(text, LETTERS, width - 2 * MARGIN)]
    heights = [_height(line) for line in lines]
    spacing = round(1.45 * LETTERS)
    height = 2 * MARGIN + sum(heights) + GAP * len(lines) + bar.height + (GAP // 2 + spacing * len(notes))
    page = Image.new("RGB", (width, height), "white")
    y = MARGIN
    for line, tall in zip(lines, heights, strict=True):
        deepest = max(p.image.height for p in line if p)
        for place, panel in enumerate(line):
            if panel:
                _draw(page, panel, MARGIN + place * (column + GAP), y, deepest, column)
        y += tall + GAP
    page.paste(bar, (MARGIN, y))
    y += bar.height + GAP // 2
    for text in notes:
        ImageDraw.Draw(page).text((MARGIN, y), text, INK["plain"], lettering.font(LETTERS))
        y += spacing
    return page


def per_line(panels: int, most: int) -> int:
    """Return the panels per line when lines are even: 5 panels with at most 4 per line give 3 and 2, not 4 and 1."""
    lines = -(-panels // most)
    return -(-panels // lines) if lines else 1


def _height(line: Sequence[_Panel | None]) -> int:
    panels = [p for p in line if p]
    return max(p.image.height for p in panels) + 6 + round(1.45 * LETTERS) * max(len(p.lines) for p in panels)


def _draw(page: Image.Image, panel: _Panel, x: int, y: int, deepest: int, column: int) -> None:
    page.paste(panel.image, (x, y))
    draw = ImageDraw.Draw(page)
    y += deepest + 6
    for line in panel.lines:
        at = float(x)
        for span in line:
            bold = span.role in ("label", "note")
            text = lettering.fit(span.text, LETTERS, x + column - at, bold)
            draw.text((at, y), text, INK[span.role], lettering.font(LETTERS, bold))
            at += lettering.font(LETTERS, bold).getlength(text)
        y += round(1.45 * LETTERS)


def wrapped(lines: Iterable[Sequence[Span]], width: float) -> list[Sequence[Span]]:
    """Wrap the notes of a caption to `width` px; other lines stay as they are."""
    output: list[Sequence[Span]] = []
    for line in lines:
        if line[0].role == "note":
            output += [[Span(text, "note")] for text in lettering.wrap(line[0].text, LETTERS, width, bold=True)]
        else:
            output.append(line)
    return output
