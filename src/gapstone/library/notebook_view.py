"""What a notebook shows of a comparison and of an evaluation: the verdict, a table, and charts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gapstone.comparing.report.charts import PAPER, Chart, ChartStyle
from gapstone.comparing.report.report_charts import draw, heads_of
from gapstone.library.head_of_results import HeadResult

MOST_REMARKS = 3
CELL = "text-align:left;padding:.15em .8em .15em 0;background:#fff;color:#1d2023"
SHOWN = {"cost": "Against parameters", "shift": "When the image is moved", "curve": "Against labelled images"}


def notebook_view(results: dict[str, Any], rows: Sequence[tuple[HeadResult, Sequence[str]]], report: Path) -> str:
    """HTML on a background of its own: notebooks have light and dark themes, and the charts are drawn for one."""
    heads, baseline = heads_of(results), results["settings"]["baseline"]
    metric = results["metrics"][0]["words"]
    keys = [ChartStyle(number, PAPER).key() for number in range(len(rows))]
    cells = [(head.name + (" (baseline)" if head.name == baseline else ""), *shown[1:]) for head, shown in rows]
    table = _table(("head", metric, "parameters", f"against {baseline}"), cells, keys)
    drawn = {words: draw(results, heads, name, PAPER) for name, words in SHOWN.items()}
    figures = Markup("").join(_figure(words, chart) for words, chart in drawn.items() if chart is not None)
    return _page(results, table, figures, report)


def evaluation_view(results: dict[str, Any], titles: Sequence[str], rows: Sequence[Sequence[str]], report: Path) -> str:
    """The same of an evaluation, without charts."""
    return _page(results, _table(("model", *titles[1:]), rows), Markup(""), report)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], keys: Sequence[Markup] = ()) -> Markup:
    """`keys`: the colour of each row in charts."""

    def cell(kind: str, text: str) -> Markup:
        return Markup("<{} style='{}'>{}</{}>").format(kind, CELL, text, kind)

    shown = [Markup("<td style='{}'><div style='width:2.4em'>{}</div></td>").format(CELL, key) for key in keys]
    head = Markup("").join([*([cell("th", "")] if keys else []), *(cell("th", title) for title in titles)])
    lines = [
        Markup("<tr>{}{}</tr>").format(
            shown[number] if keys else "",
            Markup("").join([cell("th", row[0]), *(cell("td", text) for text in row[1:])]),
        )
        for number, row in enumerate(rows)
    ]
    return Markup(
        "<table style='border-collapse:collapse;margin:.6em 0;background:#fff;color:#1d2023'>"
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
    ).format(head, Markup("").join(lines))


def _page(results: dict[str, Any], table: Markup, figures: Markup, report: Path) -> str:
    remarks = [*results["findings"], *results["remarks"]][:MOST_REMARKS]
    page = Markup(
        "<div style='background:#fff;color:#1d2023;padding:.8em 1em;max-width:62rem;border-radius:6px'>"
        "<p style='font-size:1.15em;margin:.2em 0'><b>{verdict}</b></p>{remarks}{table}"
        "<div style='display:flex;flex-wrap:wrap;gap:1em'>{figures}</div>"
        "<p style='margin:.2em 0'>Report: {report}</p></div>"
    ).format(
        verdict=results["verdict"],
        remarks=Markup("").join(Markup("<p style='margin:.2em 0'>{}</p>").format(text) for text in remarks),
        table=table,
        figures=figures,
        report=str(report),
    )
    return str.__str__(page)


def _figure(words: str, chart: Chart) -> Markup:
    return Markup("<figure style='width:18rem;margin:0'><figcaption>{}</figcaption>{}</figure>").format(words, chart)
