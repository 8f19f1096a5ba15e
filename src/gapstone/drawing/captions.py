"""The caption of a map, with the same words in PNG and SVG:

cat
93.1 %  ·  logit +4.12
+5.03 for  −1.11 against  +0.20 bias
no positive evidence

Where the mean of all classes was subtracted, the second line says "logit 3.10 above the mean".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gapstone.console.formatting import display
from gapstone.drawing.evidence import Evidence, percent, signed

Role = Literal["label", "plain", "for", "against", "note"]


@dataclass(frozen=True)
class Span:
    """A piece of a line in one style."""

    text: str
    role: Role = "plain"


def caption(evidence: Evidence) -> list[list[Span]]:
    """Return the lines of a caption: label, probability and logit, sums of the map, then warnings."""
    against = float(evidence.map.clip(max=0).sum())
    lines = [
        [Span(display(evidence.label), "label")],
        [Span(f"{percent(evidence.probability)}  ·  {evidence.logit_text}")],
        [
            Span(f"{signed(evidence.positive)} for  ", "for"),
            Span(f"{signed(against)} against  ", "against"),
            Span(f"{signed(evidence.bias)} bias"),
        ],
    ]
    if evidence.positive == 0:
        lines.append([Span("no positive evidence", "note")])
    if not evidence.additive:
        rest = f"{evidence.completeness:.2g}"
        lines.append([Span(f"not additive: the map leaves {rest} of the logit unexplained", "note")])
    return lines


def remarks(evidences: Iterable[Evidence]) -> list[str]:
    """Return the notes that hold for a whole sheet."""
    notes = []
    evidences = list(evidences)
    for reference in dict.fromkeys(e.reference for e in evidences if e.reference is not None):
        notes.append(f"Maps, logits and biases minus {display(reference)}: softmax sees only how classes differ.")
    if any(not e.placement.covers(e.size) for e in evidences):
        notes.append("Thin line: the part of the picture that the network saw.")
    if held := dict.fromkeys(name for e in evidences for name in e.held):
        notes.append(f"Held as a number of the picture, so that the cells' parts add up: {', '.join(held)}.")
    if any(not e.placement.exact for e in evidences):
        notes.append("Where exactly this network's cells look is not known: they share evenly what it saw.")
    return notes
