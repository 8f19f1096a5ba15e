"""Logits and probabilities as text beside a map."""


def signed(value: float) -> str:
    """Return at most six characters: +4.12, −0.35, +123.4, −12345, +1e+06. "0" is exactly zero, "−0.00" is not."""
    if value == 0:
        return "0"
    size = abs(value)
    text = f"{value:+.0e}" if size >= 1e5 else f"{value:+.{2 if size < 99.9 else 1 if size < 999.9 else 0}f}"
    return text.replace("-", "−", 1) if value < 0 else text


def percent(probability: float) -> str:
    """Return 93.1 %, and "< 0.1 %" or "> 99.9 %" for what would be rounded to 0 or 100 %."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    if 0.999 < probability < 1:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"
