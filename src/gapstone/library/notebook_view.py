"""What a notebook shows of a comparison: the verdict, a table of the heads, and charts."""

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
    lines = [
        Markup("<tr><td style='{}'><div style='width:2.4em'>{}</div></td><th style='{}'>{}</th>{}</tr>").format(
            CELL,
            ChartStyle(number, PAPER).key(),
            CELL,
            head.name + (" (baseline)" if head.name == baseline else ""),
            Markup("").join(Markup("<td style='{}'>{}</td>").format(CELL, cell) for cell in cells[1:]),
        )
        for number, (head, cells) in enumerate(rows)
    ]
    names = ("", "head", metric, "parameters", f"against {baseline}")
    titles = Markup("").join(Markup("<th style='{}'>{}</th>").format(CELL, name) for name in names)
    drawn = {words: draw(results, heads, name, PAPER) for name, words in SHOWN.items()}
    figures = Markup("").join(_figure(words, chart) for words, chart in drawn.items() if chart is not None)
    remarks = [*results["findings"], *results["remarks"]][:MOST_REMARKS]
    page = Markup(
        "<div style='background:#fff;color:#1d2023;padding:.8em 1em;max-width:62rem;border-radius:6px'>"
        "<p style='font-size:1.15em;margin:.2em 0'><b>{verdict}</b></p>{remarks}"
        "<table style='border-collapse:collapse;margin:.6em 0;background:#fff;color:#1d2023'>"
        "<thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"
        "<div style='display:flex;flex-wrap:wrap;gap:1em'>{figures}</div>"
        "<p style='margin:.2em 0'>Report: {report}</p></div>"
    ).format(
        verdict=results["verdict"],
        remarks=Markup("").join(Markup("<p style='margin:.2em 0'>{}</p>").format(text) for text in remarks),
        titles=titles,
        rows=Markup("").join(lines),
        figures=figures,
        report=str(report),
    )
    return str.__str__(page)


def _figure(words: str, chart: Chart) -> Markup:
    return Markup("<figure style='width:18rem;margin:0'><figcaption>{}</figcaption>{}</figure>").format(words, chart)
