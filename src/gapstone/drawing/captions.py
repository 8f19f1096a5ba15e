"""What is said about a map, the same words in PNG and SVG:

cat
93.1 %  ·  logit +4.12
+5.03 for  −1.11 against  +0.20 bias
no positive evidence
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gapstone.console.formatting import display
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.logit_text import percent, signed

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
