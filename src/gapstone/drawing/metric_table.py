"""A table of all metrics with their intervals, for any page of gapstone's."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gapstone.console.formatting import span

NOTHING = "–"


def metric_table(
    rows: Sequence[tuple[str | Markup, Mapping[str, dict[str, Any]]]], metrics: Sequence[Mapping[str, Any]]
) -> Markup:
    """An HTML table: a row for each model or head, a column for each metric, the first one in bold.

        >>> metric = {"name": "nll", "short": "NLL", "unit": "nats", "factor": 1, "digits": 3, "lower_is_better": True}
        >>> metric_table([("gap", {"nll": {"mean": 0.21, "ci95": [0.18, 0.25]}})], [metric])
        Markup('<table class="metrics">…')

    Args:
        rows: names (text is escaped), and by name of the metric its Stat: "mean" and "ci95", either may be None.
        metrics: as `Metric.to_json`, in the order of the columns.
    """
    heads = Markup("").join(
        Markup('<th class="n" scope="col">{}{}</th>').format(metric["short"], _unit(metric)) for metric in metrics
    )
    lines = []
    for name, stats in rows:
        cells = Markup("").join(
            Markup('<td class="n">{}</td>').format(_cell(stats[metric["name"]], metric, place == 0))
            for place, metric in enumerate(metrics)
        )
        lines.append(Markup('<tr><th scope="row">{}</th>{}</tr>').format(name, cells))
    return Markup('<table class="metrics"><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table>').format(
        heads, Markup("").join(lines)
    )


def _unit(metric: Mapping[str, Any]) -> Markup:
    unit = "%" if metric["factor"] == 100 else metric["unit"]
    text = ", ".join(filter(None, [unit, "lower is better" if metric["lower_is_better"] else ""]))
    return Markup('<br><span class="soft small">{}</span>').format(text) if text else Markup()


def _cell(stat: Mapping[str, Any], metric: Mapping[str, Any], strong: bool) -> Markup:
    if stat["mean"] is None:
        return Markup(NOTHING)
    factor, digits = metric["factor"], metric["digits"]
    number = Markup("<b>{}</b>" if strong else "{}").format(f"{factor * stat['mean']:,.{digits}f}")
    if not stat["ci95"]:
        return number
    low, high = stat["ci95"]
    return number + Markup('<br><span class="pm">{}</span>').format(span(factor * low, factor * high, digits))
