"""How often each of several labels is found, missed and answered falsely: one <svg> for any page, without a script.

    a row for each class:  found | missed  of the images with it,  then false answers beside as many such images

Up to MOST_WITH_NUMBERS classes have counts in their bars, up to MOST_NAMED names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gapstone.drawing.confusion_picture import MOST_DRAWN, MOST_NAMED, ClassName, name_font

MOST_WITH_NUMBERS = 60
WIDE, GAP = 240, 14
"""Of the bar of all images with a class, and between it and that of false answers."""


def found_picture(classes: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The picture; None of more than MOST_DRAWN classes.

        >>> found_picture([{"class": "cat", "images": 9, "found": 8, "missed": 1, "false": 3}])
        Markup('<svg class="confusion" viewBox=…')

    Args:
        classes: of each its name, its number of test images, and the counts of one model or of several trials together.
            Those with fewer than FEW images are marked.
    """
    if not classes or len(classes) > MOST_DRAWN:
        return None
    side = 20 if len(classes) <= MOST_WITH_NUMBERS else 10 if len(classes) <= MOST_NAMED else 3
    names = [ClassName(entry["class"], int(entry["images"])) for entry in classes]
    rows = [_row(entry, names[place], place * side, side) for place, entry in enumerate(classes)]
    room = 0.65 * name_font(side) * max(name.width for name in names) + 14 if side > 3 else 4
    width, top = room + 2 * WIDE + GAP + 4, 22
    heads = Markup(
        '<g font-size="12" fill="var(--soft, #666)"><text x="0" y="-8">found and missed, of the images with it</text>'
        '<text x="{}" y="-8">false answers, beside as many</text></g>'
    ).format(WIDE + GAP)
    label = f"How often each of {len(names)} classes is found, missed and answered falsely"
    return Markup(
        '<svg class="confusion" viewBox="{:.0f} {} {:.0f} {}" width="{:.0f}" role="img" aria-label="{}">{}{}</svg>'
    ).format(-room, -top, width, top + side * len(names) + 4, width, label, heads, Markup("").join(rows))


def _row(entry: Mapping[str, Any], name: ClassName, y: float, side: int) -> Markup:
    found, missed, false = (int(entry[key]) for key in ("found", "missed", "false"))
    there = max(found + missed, 1)
    size, high = name_font(side), side - (3 if side > 3 else 0)
    ink = "var(--soft, #666)" if name.few else "var(--ink, #222)"
    parts = [
        _bar(0, WIDE * found / there, y, high, "right", 0.55, found if side >= 20 else None),
        _bar(WIDE * found / there, WIDE * missed / there, y, high, "wrong", 0.25, missed if side >= 20 else None),
        _bar(WIDE + GAP, WIDE * min(false / there, 1.0), y, high, "wrong", 0.55, false if side >= 20 else None),
    ]
    if side > 3:
        parts.append(
            Markup(
                '<text x="-6" y="{:.1f}" text-anchor="end" font-size="{:.1f}" fill="{}"><title>{}</title>{}</text>'
            ).format(y + high / 2 + 0.35 * size, size, ink, name.full, name.short)
        )
    return Markup("").join(parts)


def _bar(x: float, width: float, y: float, high: float, colour: str, strength: float, number: int | None) -> Markup:
    rgb = "0 114 178" if colour == "right" else "213 94 0"
    bar = Markup('<rect x="{:.1f}" y="{}" width="{:.1f}" height="{}" fill="rgb(var(--{}, {}) / {})"/>').format(
        x, y, width, high, colour, rgb, strength
    )
    text = f"{number:,}" if number else ""
    if not text or width < 8 * len(text):
        return bar
    return bar + Markup('<text x="{:.1f}" y="{:.1f}" font-size="11" fill="var(--ink, #222)">{}</text>').format(
        x + 4, y + high / 2 + 4, text
    )
