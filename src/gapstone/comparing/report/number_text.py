"""Numbers as text for the report; None, an unmeasured value, becomes a dash."""

from collections.abc import Sequence
from typing import Any

from gapstone.console import formatting
from gapstone.console.formatting import count_noun as count_noun
from gapstone.console.formatting import span as span
from gapstone.runtime.timing import unsteady

NOTHING = "–"


def percent(share: float | None, digits: int = 1) -> str:
    """>>> percent(0.9312), percent(None)
    ('93.1', '–')
    """
    return NOTHING if share is None else f"{100 * share:.{digits}f}"


def plus_minus(stat: dict[str, Any] | None, scale: float = 100, digits: int = 1, exact: bool = True) -> str | None:
    """The 95 % interval of a statistic, of two trials their range; None if there is neither, or it has no width.

    >>> plus_minus({"mean": 0.93, "ci95": [0.92, 0.94], "values": [0.92, 0.93, 0.94]})
    '± 1.0'
    >>> plus_minus({"mean": 0.98, "ci95": [0.94, 0.99], "values": [0.96, 0.98, 1.0]})     # not as far below as above
    '(94.0 to 99.0)'
    >>> plus_minus({"mean": 0.90, "ci95": [0.87, 0.92], "values": [0.89, 0.9, 0.91]}, exact=False)     # the longer side
    '± 3.0'
    >>> plus_minus({"mean": 0.98, "ci95": None, "values": [0.96, 1.0]})
    '[96.0 to 100.0]'
    """
    if not stat:
        return None
    if not stat["ci95"]:
        two = [scale * value for value in stat["values"]] if len(stat["values"]) == 2 else []
        return f"[{span(min(two), max(two), digits)}]" if len(set(two)) == 2 else None
    low, high = stat["ci95"]
    if low == high:
        return None
    sides = [stat["mean"] - low, high - stat["mean"]]
    below, above, longer = (f"{scale * distance:.{digits}f}" for distance in (*sides, max(sides)))
    if below == above or (not exact and stat["mean"] - max(sides) >= 0 and stat["mean"] + max(sides) <= 1):
        return f"± {longer}"
    return f"({span(scale * low, scale * high, digits)})"


def plain(number: float | None, digits: int = 2) -> str:
    return NOTHING if number is None else f"{number:,.{digits}f}"


def signed(number: float | None, digits: int = 1) -> str:
    """>>> signed(-1.25), signed(None)
    ('−1.2', '–')
    """
    return NOTHING if number is None else formatting.signed(number, digits)


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


def seconds(number: float | None) -> str:
    """>>> seconds(41.2), seconds(400)
    ('41 s', '6.7 min')
    """
    if number is None:
        return NOTHING
    if number < 120:
        return f"{number:.0f} s"
    return f"{number / 60:.1f} min" if number < 7200 else f"{number / 3600:.1f} h"


def milliseconds(speed: dict[str, Any] | None, quartiles: bool = False) -> str:
    """A head's time per image; `~` marks rounds that differ too much for a reliable median.

    >>> milliseconds({"median": 0.62, "low": 0.6, "high": 0.65}), milliseconds({"median": 21, "low": 9, "high": 36})
    ('0.62', '~21.00')
    """
    if speed is None:
        return NOTHING
    text = ("~" if unsteady(speed) else "") + plain(speed["median"])
    return f"{text} ({plain(speed['low'])}–{plain(speed['high'])})" if quartiles else text


def repeats(settings: dict[str, Any]) -> str:
    """How many trials each head has.

    >>> repeats({"folds": None, "seeds": [0, 1, 2]})
    '3 seeds'
    """
    return count_noun(settings["folds"], "fold") if settings["folds"] else count_noun(len(settings["seeds"]), "seed")


def deciding(head: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The Stat of the metric that decides the verdicts."""
    stat: dict[str, Any] = head["metrics"][settings["metric"]]
    return stat


def beside_training(head: dict[str, Any], data: dict[str, Any]) -> dict[str, float | None]:
    """What a head has on training and on test images: accuracy; with several labels mean average precision.

    >>> beside_training({"train_accuracy": {"mean": 0.9}, "test_accuracy": {"mean": 0.8}}, {})
    {'train': 0.9, 'test': 0.8}
    """
    if data.get("multi_label"):
        train, test = head["train_average_precision"], head["metrics"]["average_precision"]
    else:
        train, test = head["train_accuracy"], head["test_accuracy"]
    return {"train": train["mean"], "test": test["mean"]}


def images_of_groups(data: dict[str, Any]) -> str:
    """The number of test images, and of their groups.

    >>> images_of_groups({"test": 154, "groups": {"by": "--group patient", "test": 15}})
    '154 test images of 15 groups'
    """
    images, groups = count_noun(data["test"], "test image"), data.get("groups")
    if groups is None:
        return images
    different = count_noun(groups["test"], "group") if groups["by"] else f"{groups['test']:,} different pictures"
    return f"{images} of {different}"


def by_chance(data: dict[str, Any]) -> str:
    """What else could have been tested: "test images", or "test groups" where groups are named."""
    groups = data.get("groups")
    return "test groups" if groups is not None and groups["by"] else "test images"


def metric_value(value: float | None, metric: dict[str, Any]) -> str:
    """The value of a metric of results.json, as text.

    >>> metric_value(0.9312, {"factor": 100, "digits": 1}), metric_value(0.2345, {"factor": 1, "digits": 3})
    ('93.1', '0.234')
    """
    return NOTHING if value is None else f"{metric['factor'] * value:,.{metric['digits']}f}"


def metric_interval(stat: dict[str, Any], metric: dict[str, Any], exact: bool = True) -> str | None:
    """Its interval, as `plus_minus`."""
    return plus_minus(stat, metric["factor"], metric["digits"], exact)


def change(pair: dict[str, Any]) -> str:
    """The difference of a pair with its unit.

    >>> change({"difference": -1.25, "digits": 1, "unit": "percentage points"})
    '−1.2 percentage points'
    """
    return f"{signed(pair['difference'], pair['digits'])} {pair['unit']}".strip()


def ends(pair: dict[str, Any], key: str = "ci95") -> str:
    """An interval of a pair.

    >>> ends({"ci95": [-0.4, 2.8], "digits": 1})
    '−0.4 to +2.8'
    """
    low, high = (signed(end, pair["digits"]) for end in pair[key])
    return f"{low} to {high}"


def about_intervals(heads: Sequence[dict[str, Any]], settings: dict[str, Any], words: str, others: str) -> str:
    """What stands beside the metric, in sentences; `others` is `by_chance`.

    >>> about_intervals(heads, {"folds": None, "metric": "accuracy"}, "accuracy", "test images")
    '± or in brackets: 95 % CI of the accuracy for other seeds and other test images of the same kind.'
    """
    kind = "fold" if settings["folds"] else "seed"
    accuracies = [deciding(head, settings) for head in heads if head["test_accuracy"]["mean"] is not None]
    sentences = []
    if any(stat["ci95"] for stat in accuracies):
        sentences.append(
            f"± or in brackets: 95 % CI of the {words} for other {kind}s and other {others} of the same kind."
        )
    if any(not stat["ci95"] and len(stat["values"]) == 2 for stat in accuracies):
        sentences.append(f"In square brackets: the two {kind}s; an interval takes 3 or more, better 5.")
    if any(len(stat["values"]) == 1 for stat in accuracies):
        sentences.append(f"No ±: one {kind} cannot say how far this accuracy varies; take 5.")
    return " ".join(sentences)


def compared(pair: dict[str, Any]) -> str:
    """The comparison of two heads as a sentence, without the advice.

    >>> compared(pair)
    'gap is better than fc: +4.1 percentage points (95 % CI +2.0 to +6.2, Holm-adjusted p < 0.001).'
    """
    a, b, word = pair["a"], pair["b"], pair["verdict"]
    if pair["difference"] is None:
        return f"{a} and {b} were not compared."
    difference = change(pair)
    p = p_value(pair["p_holm"])
    p = f"Holm-adjusted p {p if p.startswith('<') else f'= {p}'}"
    if pair["ci95"] is not None:
        interval = f"95 % CI {ends(pair)}"
    elif pair["p"] is not None and pair["range"] is not None:
        interval = f"{ends(pair, 'range')} in {pair['repeats']} trials each"
    else:
        return f"{a} and {b}: a difference of {difference} was seen, with too little data for a confidence interval."
    both = {"equivalent": f"{a} and {b} are equivalent", "cannot tell": f"{a} and {b} do not differ detectably"}
    return f"{both.get(word, f'{a} is {word} than {b}')}: {difference} ({interval}, {p})."


def sensitivity(pairs: Sequence[dict[str, Any]]) -> str:
    """The differences that the comparison would have detected; "" if unknown.

    >>> sensitivity(pairs)
    'True differences of 1.4 to 2.1 percentage points would be detected with a power of 80 %.'
    """
    tested = [pair for pair in pairs if pair.get("p") is not None and pair["repeats"] > 2]
    if not tested:
        return ""
    detectable = [pair["detectable"] for pair in tested if pair["detectable"] is not None]
    if not detectable:
        return "No difference, however large, would be detected with a power of 80 %: more seeds are needed."
    size = f"{span(min(detectable), max(detectable), tested[0]['digits'])} {tested[0]['unit']}".strip()
    text = f"A true difference of {size} would be detected with a power of 80 %"
    if missing := len(tested) - len(detectable):
        text += f"; for {count_noun(missing, 'other head')} none would, however large"
    return f"{text}."
