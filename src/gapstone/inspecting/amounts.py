"""Numbers as text with three significant digits."""

THOUSANDS = (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")


def count(value: float) -> str:
    """>>> count(138357544), count(15470264320), count(500), count(999999)
    ('138 M', '15.5 G', '500', '1.00 M')
    """
    for factor, unit in THOUSANDS:
        if value >= factor * 0.9995:
            number = value / factor
            return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Format bytes in powers of ten.

    >>> size(553430176), size(2048), size(12)
    ('553 MB', '2.05 kB', '12 B')
    """
    number = count(value)
    return f"{number}B" if " " in number else f"{number} B"


def share(part: float, whole: float) -> str:
    """>>> share(123642856, 138357544), share(1, 10**9), share(0, 5)
    ('89.4 %', '<0.1 %', '0 %')
    """
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return "<0.1 %" if percent < 0.05 else f"{percent:.1f} %"


def cells(shape: tuple[int, ...] | None) -> str:
    """>>> cells((512, 7, 7)), cells(None)
    ('512×7×7', '–')
    """
    return "×".join(map(str, shape)) if shape else "–"


def pixels(sides: tuple[float, ...] | None) -> str:
    """Format sides in px; equal sides as one number.

    >>> pixels((32.0, 32.0)), pixels((16, 8))
    ('32', '16×8')
    """
    if sides is None:
        return "–"
    written = [f"{side:.4g}" for side in sides]
    return written[0] if len(set(written)) == 1 else "×".join(written)
