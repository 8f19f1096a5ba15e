"""What is said about a map, the same words in PNG and SVG:

cat
93.1 %  ·  logit +4.12
+5.03 for  −1.11 against  +0.20 bias
no positive evidence
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gapstone.images.names import display
from gapstone.maps.explanation import Evidence

Role = Literal["label", "plain", "for", "against", "note"]


@dataclass(frozen=True)
class Span:
    """Words of one line that look alike."""

    text: str
    role: Role = "plain"


def caption(evidence: Evidence) -> list[list[Span]]:
    """Three lines, and one more for each thing that a reader must not miss."""
    against = float(evidence.map.clip(max=0).sum())
    lines = [
        [Span(display(evidence.label), "label")],
        [Span(f"{percent(evidence.probability)}  ·  logit {signed(evidence.logit)}")],
        [
            Span(f"{signed(evidence.positive)} for  ", "for"),
            Span(f"{signed(against)} against  ", "against"),
            Span(f"{signed(evidence.bias)} bias"),
        ],
    ]
    if evidence.positive == 0:
        lines.append([Span("no positive evidence", "note")])
    if not evidence.additive:
        left = f"{evidence.completeness:.2g}"
        lines.append([Span(f"not additive: the map leaves {left} of the logit unexplained", "note")])
    return lines


def remarks(evidences: Iterable[Evidence]) -> list[str]:
    """What holds for the whole sheet."""
    said = []
    evidences = list(evidences)
    if any(not whole(e) for e in evidences):
        said.append("Thin line: the part of the picture that the network saw.")
    if held := dict.fromkeys(what for e in evidences for what in e.held):
        said.append(f"Held as a number of the picture, so that the cells' parts add up: {', '.join(held)}.")
    if any(not e.placement.exact for e in evidences):
        said.append("Where exactly this network's cells look is not known: they share evenly what it saw.")
    return said


def whole(evidence: Evidence) -> bool:
    """Did the network see all of the picture?"""
    return evidence.placement.covers(evidence.size)


def signed(value: float) -> str:
    """Six characters at most: +4.12, −0.35, +123.4, −12345, +1e+06; 0 is nothing at all, −0.00 is next to nothing."""
    if value == 0:
        return "0"
    size = abs(value)
    text = f"{value:+.0e}" if size >= 1e5 else f"{value:+.{2 if size < 99.9 else 1 if size < 999.9 else 0}f}"
    return text.replace("-", "−", 1) if value < 0 else text


def percent(probability: float) -> str:
    if 0 < probability < 0.001:
        return "< 0.1 %"
    if 0.999 < probability < 1:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"
