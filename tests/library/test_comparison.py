"""`Comparison`: what it says equals the results that the commands write."""

import io
import re

import numpy as np
import pytest
from PIL import Image

import gapstone as gs
from gapstone.library.measured_numbers import MeanOfTrials
from gapstone.library.written_tables import written_table
from tests.comparing import fake_results

HEADS = ("gap", "gmp", "fc")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("fake")
    fake_results.make(out, heads=HEADS, failed={"gmp": [3]}, classes=("cat", "dog", "<b>"), images=60)
    return gs.Comparison.open(str(out))


def test_heads(result):
    entries = result.results["heads"]
    assert [head.name for head in result] == result.heads.names() == list(HEADS)
    assert len(result) == 3
    assert "gap" in result
    assert "GAP" not in result
    gap = result["gap"]
    assert gap is result.heads[0]
    assert (gap.accuracy.mean, gap.accuracy.values) == (
        entries[0]["test_accuracy"]["mean"],
        tuple(entries[0]["test_accuracy"]["values"]),
    )
    assert gap.accuracy.interval == tuple(entries[0]["test_accuracy"]["ci95"])
    assert float(gap.accuracy) == gap.accuracy.mean
    assert gap.metrics["auroc"].mean == entries[0]["metrics"]["auroc"]["mean"]
    assert gap.score.words == result.results["metrics"][0]["words"]
    assert (gap.parameters, gap.macs, gap.ms_per_image) == (29658, 823936, 0.62)
    assert result["gmp"].failed == (f"seed 3: {fake_results.REASON}",)
    with pytest.raises(KeyError, match="there is no head 'nin'; there are gap, gmp, fc"):
        result["nin"]


def test_pairs_and_trials(result):
    [gmp, fc] = result.pairs
    told = result.results["pairs"][1]
    assert (fc.head, fc.baseline, fc.verdict) == ("fc", "gap", told["verdict"])
    assert (fc.difference, fc.interval, fc.p_value) == (told["difference"], tuple(told["ci95"]), told["p_holm"])
    assert result.pairs["gmp"] is gmp
    assert [trial.seed for trial in result.trials] == [0, 1, 2, 3, 4] * 3
    [failed] = [trial for trial in result.trials if trial.failed]
    assert (failed.head, failed.seed, failed.metrics) == ("gmp", 3, {})
    for trial in result.trials:  # those after the failed one, too, have their own numbers
        assert trial.metrics.get("accuracy") == trial.facts["test_accuracy"]


def test_frames(result):
    heads = result.heads.frame().set_index("head")
    assert heads.loc["fc", "accuracy"] == result["fc"].accuracy.mean
    assert heads.loc["fc", ["accuracy_low", "accuracy_high"]].tolist() == list(result["fc"].accuracy.interval)
    pairs = result.pairs.frame()
    assert pairs["verdict"].tolist() == [pair.verdict for pair in result.pairs]
    trials = result.trials.frame()
    means = trials.groupby("head")["accuracy"].mean()
    assert {head: means[head] for head in HEADS} == pytest.approx({head: result[head].accuracy.mean for head in HEADS})


def test_tables_for_papers(result):
    """Read back, they are the numbers of the results; marks within names stand for themselves."""
    lines = result.table().splitlines()
    assert len(lines) == 2 + len(HEADS)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[0] for row in cells[2:]] == list(HEADS)
    assert [row[1] for row in cells[2:]] == [result[head].score.short() for head in HEADS]
    assert cells[2][5] == "baseline"
    pair = result.pairs["fc"]
    assert cells[4][5] == pair.verdict
    assert cells[4][3].startswith(f"{pair.difference:+.1f}".replace("-", "−"))
    latex = result.table("latex")
    assert latex.startswith("\\begin{tabular}{lrrrrr}\n\\toprule\nhead & ")
    assert latex.count(r" \\") == 1 + len(HEADS)
    assert "−" not in latex
    assert re.search(r"(?<!\\)%", latex) is None
    with pytest.raises(ValueError, match="--table html: must be markdown or latex"):
        result.table("html")
    assert written_table(["a|b", "c"], [["x_1", "<b>"]], "markdown") == "| a\\|b | c |\n|:--|--:|\n| x\\_1 | \\<b\\> |"
    assert r"x\_1 & 5\,\%".replace("\\,", " ") in written_table(["a", "c"], [["x_1", "5 %"]], "latex")


def test_all_figures(result):
    paths = result.save_figures("png")
    assert {"pairs.png", "cost.png", "shift.png", "confusion-1-gap.png", "reliability-3-fc.png"} <= {
        path.name for path in paths
    }
    for path in paths:
        with Image.open(path) as picture:
            assert picture.width > 300
    with pytest.raises(ValueError, match="--figures gif: must be svg or png or pdf"):
        result.save_figures("gif")


def test_predictions_that_are_damaged(result):
    path = result.out / "predictions.npz"
    for content in (b"", b"PK\x03\x04 cut", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"predictions\.npz cannot be read \(.*\): the same comparison again"):
            result.predictions()
    np.savez(path, classes=np.array(["cat"]))
    with pytest.raises(ValueError, match=r"it has no folds, heads, image, images, label, prediction, seeds, trial"):
        result.predictions()
    path.unlink()
    with pytest.raises(ValueError, match="No such file"):
        result.predictions()
    with pytest.raises(KeyError, match="there is no head 'nin'"):
        result.predictions("nin")


def test_classes_with_few_test_images_are_marked(tmp_path):
    made = fake_results.make(tmp_path, heads=("gap", "fc"), classes=("cat", "dog"), images=60, shown=1, seeds=3)
    for test, label in (([60, 4], "class (* fewer than 5 test images)"), ([60, 5], "class")):
        made["data"]["counts"]["test"] = test
        [axes] = gs.Comparison(tmp_path, made).plot("confusion").axes
        assert axes.get_ylabel() == label
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["cat", "dog*" if test[1] < 5 else "dog"]


def test_frames_without_pandas(result, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match="a DataFrame needs pandas, which is not installed: pip install pandas"):
        result.heads.frame()
    assert len(result.heads.rows()) == 3


def test_measured():
    stat = {"mean": 0.9316, "ci95": [0.9, 0.95], "values": [0.93, 0.94, 0.92]}
    assert repr(MeanOfTrials.of(stat, "accuracy", 100, 1)) == "93.2 % (90.0 to 95.0), of 3 trials"
    two = {"mean": 0.935, "ci95": None, "values": [0.94, 0.93]}
    assert repr(MeanOfTrials.of(two, "accuracy", 100, 1)) == "93.5 % [93.0, 94.0], of 2 trials"
    assert repr(MeanOfTrials.of({"mean": 0.5, "ci95": None, "values": [0.5]}, "NLL", 1, 3)) == "0.500, of 1 trial"
    assert repr(MeanOfTrials.of(None, "accuracy", 100, 1)) == "not measured"
    with pytest.raises(ValueError, match="accuracy: there is no number"):
        float(MeanOfTrials.of(None, "accuracy", 100, 1))


def test_repr_is_short_and_has_every_number(result, tmp_path):
    lines = repr(result).splitlines()
    assert lines[0] == result.verdict
    assert lines[-1] == str(result.out / "report.html")
    [row] = [line for line in lines if line.startswith("fc ")]
    assert result["fc"].accuracy.short() in row
    assert result.pairs["fc"].verdict in row
    many = [f"gem:p={number}" for number in range(1, 13)]
    fake_results.make(tmp_path, heads=many, images=60, shown=1, seeds=3)
    lines = repr(gs.Comparison.open(tmp_path)).splitlines()
    assert len(lines) == 10
    assert lines[-2] == "and 7 more: .heads"
    assert sum(line.startswith("gem") for line in lines) == 5


def test_the_view_of_a_notebook(result):
    (result.out / "report.html").unlink(missing_ok=True)
    view = result._repr_html_()
    assert type(view) is str
    assert view.count("<svg") == 3 + 2  # the heads' keys; cost, shift
    assert "var(--" not in view  # the charts have colours of their own
    assert "#0072b2" in view
    assert str(result.out / "report.html") in view
    assert (result.out / "report.html").exists()  # a page that was deleted is there again
    for head in result:
        assert head.accuracy.short() in view


@pytest.mark.parametrize(
    "what", ["pairs", "cost", "validation", "loss", "shift", "same", "sizes", "reliability", "confusion"]
)
def test_figures(result, what):
    figure = result.plot(what, "gmp" if what in ("reliability", "confusion") else None)
    assert Image.open(io.BytesIO(figure._repr_png_())).width > 200
    words = {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}
    if what == "pairs":
        assert {pair.verdict for pair in result.pairs} <= words
        assert {"gmp", "fc"} <= words
        drawn = {line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 1}
        assert drawn == {pair.difference for pair in result.pairs}
    elif what == "confusion":
        assert "<b>" in words
        counts = np.array(result["gmp"].facts["confusion"])
        assert f"{counts[0, 0] / counts[0].sum():.0%}" in words
    elif what != "reliability":
        assert {"gap (baseline)", "gmp", "fc"} <= words


def test_figures_that_there_are_not(result):
    with pytest.raises(ValueError, match="there is no chart 'costs'; there are pairs, cost, validation"):
        result.plot("costs")
    with pytest.raises(ValueError, match="nothing to draw for 'curve': the comparison was made without `curve`"):
        result.plot("curve")
    with pytest.raises(ValueError, match=r"maps\(0\): expected a number of images"):
        result.maps(0)


def test_maps_are_those_of_the_report(result):
    figure = result.maps(2)
    assert len(figure.axes) == 2 * 4
    assert [axes.get_title() for axes in figure.axes[:4]] == ["image", *HEADS]
    first = np.asarray(figure.axes[0].images[0].get_array())
    with np.load(result.out / "pictures.npz") as stored:
        assert (first == stored["images"][0]).all()
        chance = np.exp(stored["logits_2"][1])
        name = result.results["data"]["classes"][stored["labels"][1]]
    assert figure.axes[4].get_ylabel() == name
    said = figure.axes[7].get_xlabel()
    assert said.startswith(f"{100 * chance[stored_label(result, 1)] / chance.sum():.1f} %")


def stored_label(result, image):
    with np.load(result.out / "pictures.npz") as stored:
        return int(stored["labels"][image])


def test_a_folder_without_results(tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(tmp_path))):
        gs.Comparison.open(tmp_path)
