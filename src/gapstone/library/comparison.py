"""`Comparison`: the results of a comparison as an object."""

import webbrowser
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gapstone.comparing.report import number_text, report_page
from gapstone.comparing.run_comparison import read_results
from gapstone.console.formatting import display
from gapstone.library.head_of_results import HeadResult, Pair, TrialResult
from gapstone.library.results_object import ResultsObject
from gapstone.library.tables import Entries
from gapstone.library.written_tables import TableForm, written_table
from gapstone.models.classifier import Classifier, load

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from gapstone.heads.own_heads import OwnHeadLike

MOST_LINES = 10
"""Of `repr`."""


class Comparison(ResultsObject[HeadResult]):
    """The results of a comparison, as `gs.compare` returns them.

    Examples:
        >>> result = gs.Comparison.open("runs/flowers")
        >>> result.verdict
        '…'
        >>> result["gap"].accuracy  # 94.1 % (92.3 to 95.6), of 5 trials
        … %…of … trials
        >>> result.pairs["gmp"].verdict
        'cannot tell'
        >>> result.heads.frame()  # with pandas
        >>> result.plot("shift")
        >>> result.model("gap").predict("cat.jpg")

    Args:
        out: The folder of the results, whose files docs/results.md describes.
        results: The content of its results.json.
    """

    @classmethod
    def open(cls, out: str | Path) -> "Comparison":
        """Open the results in a folder, of `gs.compare` or `gapstone compare`.

        Examples:
            >>> gs.Comparison.open("runs/flowers")

        Raises:
            ValueError: there are none, those of another version, or damaged ones.
        """
        return cls(Path(out), read_results(Path(out)))

    @cached_property
    def heads(self) -> Entries[HeadResult]:
        """What was measured of each head, in the order in which they were given."""
        return Entries(
            {head["head"]: HeadResult(head["head"], head, self.results["metrics"]) for head in self.results["heads"]},
            "head",
        )

    @cached_property
    def pairs(self) -> Entries[Pair]:
        """How each head differs from the baseline, by the head's name."""
        return Entries(
            {pair["a"]: Pair(pair["a"], pair["b"], self.metric, pair) for pair in self.results["pairs"]}, "pair"
        )

    @cached_property
    def trials(self) -> Entries[TrialResult]:
        """Each training of a head, by the name of its folder in OUT/trials."""
        found: dict[str, TrialResult] = {}
        finished = dict.fromkeys(self.heads.names(), 0)
        for facts in self.results["trials"]:
            measured: dict[str, float | None] = {}
            if facts["status"] == "done":
                number = finished[facts["head"]]
                stats = self.heads[facts["head"]].facts["metrics"]
                measured = {name: stat["values"][number] if stat["values"] else None for name, stat in stats.items()}
                finished[facts["head"]] += 1
            found[facts["id"]] = TrialResult(facts["head"], facts["seed"], measured, facts)
        return Entries(found, "trial")

    @property
    def _folder(self) -> Path:
        """The folder of the results. Raises ValueError where another comparison was written into it since."""
        if read_results(self.out) != self.results:
            raise ValueError(
                f"{display(self.out)} holds another comparison by now, made after this one: gs.Comparison.open("
                f"{str(self.out)!r}) reads it. To keep both, give each an out of its own."
            )
        return self.out

    @property
    def _entries(self) -> Entries[HeadResult]:
        return self.heads

    def predictions(self, head: str | None = None, probabilities: bool = False) -> "pd.DataFrame":
        """What every trial predicts for every test image.

        Examples:
            >>> answers = result.predictions("gap")
            >>> answers[~answers.correct].groupby("image").size()  # by how many seeds it was missed

        Args:
            head: one head; None: all of them.
            probabilities: with a column `p(CLASS)` for each class.

        Returns:
            A pandas DataFrame of a row per test image and trial: `image`, `label`, `head`, `seed` (or `fold`),
            `prediction`, `confidence`, `correct`. Several labels are written `cat|dog`.

        Raises:
            ImportError: pandas is not installed.
            KeyError: there is no such head.
            ValueError: the file is not there, or damaged; says what to do.
        """
        from gapstone.library.prediction_frame import prediction_frame

        return prediction_frame(
            self._folder / "predictions.npz", None if head is None else self[head].name, probabilities
        )

    def table(self, form: TableForm = "markdown") -> str:
        """The heads as a table for a paper or a page.

        Examples:
            >>> print(result.table())
            | head | …
            >>> Path("heads.tex").write_text(result.table("latex"))
            …

        Args:
            form: `markdown`, or `latex` with the package booktabs.

        Returns:
            A row for each head: the metric that decides and its interval, parameters, the difference from the baseline,
            its interval and p value (Holm), the verdict.

        Raises:
            ValueError: there is no such form.
        """
        about, baseline = self.results["metrics"][0], self.results["settings"]["baseline"]
        unit = f", {pair.unit}" if (pair := next(iter(self.pairs), None)) is not None and pair.unit else ""
        titles = ["head", about["words"], "parameters", f"minus {display(baseline)}{unit}", "p (Holm)", "verdict"]
        return written_table(titles, [self._published(head) for head in self.heads], form)

    def _published(self, head: HeadResult) -> list[str]:
        pair = next((pair.facts for pair in self.pairs if pair.head == head.name), None)
        difference = ["", "", "baseline"]
        if pair is not None:
            interval = f" ({number_text.ends(dict(pair))})" if pair["ci95"] else ""
            by = number_text.signed(pair["difference"], pair["digits"])
            difference = [f"{by}{interval}", number_text.p_value(pair["p_holm"]), pair["verdict"]]
        return [head.name, head.score.short(), number_text.short(head.parameters), *difference]

    def save_figures(self, form: str = "svg") -> list[Path]:
        """Write all charts into the folder `figures` of the results.

        Examples:
            >>> result.save_figures()[0]
            PosixPath('runs/flowers/figures/pairs.svg')

        Args:
            form: `svg`, `png` or `pdf`.

        Returns:
            The files; of charts whose numbers were not measured there are none.

        Raises:
            ValueError: there is no such form.
        """
        from gapstone.library.figures import save_all

        return save_all(self.out, self.results, form)

    def plot(self, what: str = "pairs", head: str | None = None) -> "Figure":
        """A chart of the results as a Matplotlib figure.

        Examples:
            >>> result.plot().savefig("differences.svg")
            >>> result.plot("shift")
            >>> result.plot("reliability", "gap")

        Args:
            what: `pairs` (each head's difference from the baseline, with its interval), `cost` (the metric against
                parameters), `validation` and `loss` (by epoch), `shift`, `same` and `sizes` (moved and resized images),
                `curve` (the metric against labelled images), and of one head `reliability` or `confusion`.
            head: the head of `reliability` and `confusion`; None: the first.

        Returns:
            A `matplotlib.figure.Figure`, which a notebook shows.

        Raises:
            ValueError: there is no such chart, or nothing of it was measured; says why.
        """
        from gapstone.library.figures import figure

        return figure(self.results, what, self.heads[0].name if head is None else self[head].name)

    def maps(self, images: int = 3) -> "Figure":
        """Test images and what each head saw in them, as in the report.

        Examples:
            >>> result.maps(2).savefig("maps.png", dpi=200)

        Args:
            images: how many of the test images that the report shows.

        Returns:
            A `matplotlib.figure.Figure` of a row per image and a column per head.

        Raises:
            ValueError: no head has maps, or the images are not there.
        """
        from gapstone.library.figures import map_figure

        return map_figure(self._folder, self.results, images)

    def report(self, show: bool = False) -> Path:
        """The report: one HTML file.

        Examples:
            >>> result.report()
            PosixPath('runs/flowers/report.html')

        Args:
            show: open it in the browser.

        Returns:
            Its path. A page that is not there any more is written again.
        """
        path = self._folder / "report.html"
        if not path.exists():
            report_page.write(self.out)
        if show:
            webbrowser.open(path.resolve().as_uri())
        return path

    def model(
        self,
        head: str | None = None,
        *,
        seed: int | None = None,
        backbone: "nn.Module | None" = None,
        own_head: "OwnHeadLike | None" = None,
    ) -> Classifier:
        """A trained classifier: to predict, explain, export and serve.

        Examples:
            >>> result.model("gap").predict("cat.jpg")
            >>> gs.Comparison.open("runs/flowers").model().labels

        Of a network of your own, in another process: `result.model("mine", backbone=MyNet(), own_head=MyHead)`.

        Args:
            head: None: the best head's.
            seed: with `keep="all"`, of this trial; None: of the head's best.
            backbone: a network of your own, where the comparison was made in another process.
            own_head: a head of your own, likewise.

        Returns:
            The classifier that the trial trained.

        Raises:
            KeyError: there is no such head.
            ValueError: its model was not kept; says how to keep it.
            ModelFileError: the file is damaged, or needs a network or head of your own.
        """
        if head is not None:
            head = self[head].name
        kept = self.results["models"]
        found = [one for one in kept if head in (None, one["head"]) and seed in (None, one["seed"])]
        if not found:
            wanted = f"of {display(head)}" if head is not None else "of this comparison"
            wanted += f" with seed {seed}" if seed is not None else ""
            have = ", ".join(f"{display(one['head'])} with seed {one['seed']}" for one in kept) or "none"
            raise ValueError(
                f"no model {wanted} was kept in {display(self.out)}; kept: {have}. gs.compare with the same arguments "
                f'and keep="all" keeps those of all trials; what is trained already is not trained again.'
            )
        return load(self._folder / found[0]["file"], backbone=backbone, head=own_head)

    def __repr__(self) -> str:
        rows = [self._row(head) for head in self.heads]
        most = MOST_LINES - 4  # the verdict, an empty line, the header and the report
        left_out = len(rows) - most + 1 if len(rows) > most else 0
        table = [
            ("", self.results["metrics"][0]["words"], "parameters", f"against {self.results['settings']['baseline']}")
        ]
        table += rows[: most - 1] if left_out else rows
        return self._shown(table, [f"and {left_out} more: .heads"] if left_out else [])

    def _row(self, head: HeadResult) -> tuple[str, str, str, str]:
        """Its cells in tables."""
        pair = next((pair for pair in self.pairs if pair.head == head.name), None)
        differs = "" if pair is None else f"{pair.verdict}, {number_text.change(dict(pair.facts))}"
        return display(head.name), head.score.short(), number_text.short(head.parameters), differs

    def _repr_html_(self) -> str:
        from gapstone.library.notebook_view import notebook_view

        return notebook_view(self.results, [(head, self._row(head)) for head in self.heads], self.report())
