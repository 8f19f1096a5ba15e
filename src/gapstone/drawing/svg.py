"""Draws a picture and the maps of its classes as a self-contained SVG: real text, a rectangle per cell."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.console.formatting import display
from gapstone.drawing import colourbar, colours, lettering
from gapstone.drawing.captions import Span, caption, remarks
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.overlay import check_fit, scale_of, underlay
from gapstone.drawing.sheet import COLUMN, GAP, INK, LETTERS, MARGIN, SMALL, per_line, wrapped

if TYPE_CHECKING:
    from gapstone.localisation.cam_boxes import Box

PANEL, LINE = 400, 19
MOST = 1200  # px: larger pictures are embedded at this size; the maps stay exact
STYLE = (
    f"""text{{font:{LETTERS}px "DejaVu Sans",Verdana,sans-serif;white-space:pre}}.label,.note{{font-weight:bold}}
{"".join(f".{role}{{fill:rgb{ink}}}" for role, ink in INK.items())}
"""
    + """.seen{fill:none;stroke:#a0a0a0}.box{fill:none;stroke:#fff}.dark{fill:none;stroke:#000}
.seen,.box,.dark{vector-effect:non-scaling-stroke}.box{stroke-width:1.5}.dark{stroke-width:4}
.pixels{image-rendering:pixelated}.cells rect:hover{stroke:#fff;vector-effect:non-scaling-stroke}"""
)


def svg(
    pixels: NDArray[np.uint8],
    evidences: Sequence[Evidence],
    largest: float | None = None,
    alpha: float = colours.STRONGEST,
    boxes: Mapping[int, Sequence["Box"]] | None = None,
    *,
    name: str = "",
    grey: bool = True,
    cmap: str | None = None,
) -> str:
    """Return the text of an SVG file; a tooltip on each cell shows its value.

    ```python
    Path("a.svg").write_text(svg(pixels, evidences[:3], name="a.jpg"), "utf-8")
    ```

    Args as for `side_by_side`. Cells are drawn as rectangles (`Placement.edges`), never smoothed.
    """
    scale = scale_of(largest, evidences)
    for evidence in evidences:
        check_fit(pixels, evidence)
    height, width = pixels.shape[:2]
    colour = underlay(pixels, grey=False)
    if max(colour.size) > MOST:
        colour.thumbnail((MOST, MOST), Image.Resampling.LANCZOS, reducing_gap=3.0)
    zoom = PANEL / max(height, width)
    column, tall = max(COLUMN, width * zoom), height * zoom
    kind = ' class="pixels"' if max(height, width) <= SMALL else ""
    beneath = f'<image id="beneath" width="{width}" height="{height}" preserveAspectRatio="none"{kind} href="'
    parts = [f'<defs>{beneath}{_uri(underlay(np.asarray(colour), grey))}"/></defs>']

    share = per_line(len(evidences), 4)
    captions = [wrapped(caption(e), 0.95 * column) for e in evidences]
    deep = tall + 8 + LINE * max((len(lines) for lines in captions), default=1)
    parts += [
        f'<g transform="translate({MARGIN} {MARGIN}) scale({zoom:.9g})"><image width="{width}" height="{height}" '
        f'preserveAspectRatio="none"{kind} href="{_uri(colour)}"/></g>',
        _text([[Span(display(name), "label")]], MARGIN, MARGIN + tall + LINE, column),
    ]
    for place, (evidence, lines) in enumerate(zip(evidences, captions, strict=True)):
        x = MARGIN + (1 + place % share) * (column + GAP)
        y = MARGIN + place // share * (deep + GAP)
        parts += [
            f'<g transform="translate({x:.6g} {y:.6g}) scale({zoom:.9g})"><use href="#beneath"/>',
            _cells(evidence, scale, alpha, cmap),
            _seen(evidence),
            *(_box(box) for box in (boxes or {}).get(evidence.index, ())),
            "</g>",
            _text(lines, x, y + tall + LINE, column),
        ]
    rows = -(-max(1, len(evidences)) // share)
    y = MARGIN + rows * (deep + GAP)
    parts += [_bar(scale, alpha, cmap, y)]
    notes = remarks(evidences)
    parts += [_text([[Span(text)] for text in notes], MARGIN, y + 90, 4000)]
    across = max(2 * MARGIN + (1 + min(len(evidences), share)) * (column + GAP) - GAP, 580)
    size = f"{across:.6g}", f"{y + 90 + LINE * len(notes) + MARGIN:.6g}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        f'viewBox="0 0 {size[0]} {size[1]}"><title>{_safe(name or "class activation maps")}</title>'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _cells(evidence: Evidence, largest: float, alpha: float, cmap: str | None) -> str:
    down, across = (evidence.placement.edges(n, axis) for axis, n in enumerate(evidence.map.shape))
    rgba = colours.rgba(evidence.map, largest, alpha, cmap)
    elements = ['<g class="cells" shape-rendering="crispEdges">']
    for (row, column), value in np.ndenumerate(evidence.map):
        wide, tall = across[column + 1] - across[column], down[row + 1] - down[row]
        if wide <= 0 or tall <= 0:
            continue
        r, g, b, a = rgba[row, column].tolist()
        elements.append(
            f'<rect x="{across[column]:.6g}" y="{down[row]:.6g}" width="{wide:.6g}" height="{tall:.6g}" '
            f'fill="#{r:02x}{g:02x}{b:02x}" fill-opacity="{a / 255:.3f}"><title>row {row + 1}, column {column + 1}: '
            f"{colourbar.number(float(value), largest)}</title></rect>"
        )
    return "\n".join([*elements, "</g>"])


def _seen(evidence: Evidence) -> str:
    if evidence.placement.covers(evidence.size):
        return ""
    (top, bottom), (left, right) = evidence.placement.seen
    return f'<rect class="seen" x="{left:.6g}" y="{top:.6g}" width="{right - left:.6g}" height="{bottom - top:.6g}"/>'


def _box(box: "Box") -> str:
    place = f'x="{box.x0:.6g}" y="{box.y0:.6g}" width="{box.x1 - box.x0:.6g}" height="{box.y1 - box.y0:.6g}"'
    return f'<rect class="dark" {place}/><rect class="box" {place}/>'


def _bar(largest: float, alpha: float, cmap: str | None, y: float) -> str:
    x, wide = MARGIN + 4 * LETTERS, colourbar.WIDTH
    strip = colourbar.strip(wide, 26, largest, alpha, cmap)
    elements = [
        f'<image class="pixels" x="{x}" y="{y + 20:.6g}" width="{wide}" height="26" href="{_uri(strip, "PNG")}"/>'
    ]
    sides = [
        ("middle", x + wide / 2, colourbar.TITLE, "plain"),
        ("end", x + wide, "for", "for" if cmap is None else "plain"),
    ]
    if cmap is None:
        sides.append(("start", x, "against", "against"))
    sides += [("middle", x + at * wide, text, "plain") for at, text in colourbar.ticks(largest, cmap)]
    for place, (anchor, at, text, role) in enumerate(sides):
        down = 13 if place < len(sides) - 5 else 62
        elements.append(f'<text class="{role}" x="{at:.6g}" y="{y + down:.6g}" text-anchor="{anchor}">{text}</text>')
    return "\n".join(elements)


def _text(lines: Sequence[Sequence[Span]], x: float, y: float, width: float) -> str:
    elements = []
    for number, line in enumerate(lines):
        spans = []
        for span in line:
            short = lettering.fit_any(span.text, LETTERS, 0.95 * width, span.role in ("label", "note"))
            full = f"<title>{_safe(span.text)}</title>" if short != span.text else ""
            spans.append(f"<tspan class={quoteattr(span.role)}>{full}{_safe(short)}</tspan>")
        elements.append(f'<text x="{x:.6g}" y="{y + number * LINE:.6g}">{"".join(spans)}</text>')
    return "\n".join(elements)


def _safe(text: str) -> str:
    return escape(display(text))


def _uri(picture: Image.Image, kind: str | None = None) -> str:
    kind = kind or ("PNG" if max(picture.size) <= SMALL else "JPEG")
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 88} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
