"""Numbers as people read them; None, which stands for what could not be measured, is a dash."""

from collections.abc import Sequence
from typing import Any

NOTHING = "–"


def percent(share: float | None, digits: int = 1) -> str:
    """>>> percent(0.9312), percent(None)
    ('93.1', '–')
    """
    return NOTHING if share is None else f"{100 * share:.{digits}f}"


def half(stat: dict[str, Any] | None, scale: float = 100, digits: int = 1) -> str | None:
    """Half of a Stat's 95 % interval; None where there is none, or where two equal numbers would feign certainty.

    >>> half({"mean": 0.93, "ci95": [0.92, 0.94], "values": [0.93, 0.93]})
    '1.0'
    """
    if not stat or not stat["ci95"] or stat["ci95"][0] == stat["ci95"][1]:
        return None
    return f"{scale * (stat['ci95'][1] - stat['ci95'][0]) / 2:.{digits}f}"


def plain(number: float | None, digits: int = 2) -> str:
    return NOTHING if number is None else f"{number:,.{digits}f}"


def signed(number: float | None, digits: int = 1) -> str:
    """>>> signed(-1.25), signed(0.0)
    ('−1.2', '0.0')
    """
    if number is None:
        return NOTHING
    text = f"{abs(number):.{digits}f}"
    return text if float(text) == 0 else ("−" if number < 0 else "+") + text


def short(number: float | None) -> str:
    """>>> short(29_658), short(1_051_402), short(823)
    ('29.7 k', '1.05 M', '823')
    """
    if number is None:
        return NOTHING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def p_value(p: float | None) -> str:
    """>>> p_value(0.00002), p_value(0.0321), p_value(0.43)
    ('< 0.001', '0.032', '0.43')
    """
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def points(pp: float | None) -> str:
    """>>> points(4.12), points(1.0)
    ('4.1 points', '1.0 points')
    """
    return NOTHING if pp is None else f"{abs(pp):.1f} points"


def seconds(number: float | None) -> str:
    """>>> seconds(41.2), seconds(400)
    ('41 s', '6.7 min')
    """
    if number is None:
        return NOTHING
    if number < 120:
        return f"{number:.0f} s"
    return f"{number / 60:.1f} min" if number < 7200 else f"{number / 3600:.1f} h"


def many(number: int | None, one: str, more: str | None = None) -> str:
    """>>> many(1, "seed"), many(1200, "image"), many(2, "class", "classes")
    ('1 seed', '1,200 images', '2 classes')
    """
    return NOTHING if number is None else f"{number:,} {one if number == 1 else more or one + 's'}"


def compared(pair: dict[str, Any]) -> str:
    """A pair in one sentence, without its advice.

    >>> compared(pair)
    'gap is better than fc by 4.1 points (95 % interval +2.0 to +6.2, p after Holm < 0.001).'
    """
    a, b, word = pair["a"], pair["b"], pair["verdict"]
    if pair["ci95"] is None:
        seen = "" if pair["difference_pp"] is None else f" (seen: {signed(pair['difference_pp'])} points)"
        return f"{a} against {b}: cannot tell{seen}."
    low, high = pair["ci95"]
    p = p_value(pair["p_holm"])
    inside = f"95 % interval {signed(low)} to {signed(high)}, p after Holm {p if p.startswith('<') else '= ' + p}"
    if word in ("better", "worse"):
        return f"{a} is {word} than {b} by {points(pair['difference_pp'])} ({inside})."
    return f"{a} against {b}: {word}; {signed(pair['difference_pp'])} points ({inside})."


def sensitivity(pairs: Sequence[dict[str, Any]]) -> str:
    """What the comparison could have found at all; nothing where that is not known.

    >>> sensitivity(pairs)
    'A true difference of 1.4 to 2.1 points would have been found in 4 of 5 comparisons like this one.'
    """
    found = sorted(pair["detectable_pp"] for pair in pairs if pair.get("detectable_pp") is not None)
    if not found:
        return ""
    low, high = f"{found[0]:.1f}", f"{found[-1]:.1f}"
    return (
        f"A true difference of {low if low == high else f'{low} to {high}'} points would have been found in 4 of 5 "
        "comparisons like this one."
    )
