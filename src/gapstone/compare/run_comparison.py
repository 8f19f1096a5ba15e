"""compare(): plan, train what is missing, measure, report. Stopped anywhere, it goes on from there."""

import errno
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from gapstone.compare import finished_trials, gather_results, head_speed, trials
from gapstone.compare.feature_cache import FeatureCache
from gapstone.compare.feature_pass import NAME, FeaturePass, run_feature_pass
from gapstone.compare.plan import CompareRequest, ComparisonPlan, plan
from gapstone.compare.report import report_page, report_terminal
from gapstone.compare.trials import Trial
from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars, duration
from gapstone.console.terminal import Terminal
from gapstone.data import scan_report
from gapstone.data.decoded_store import Store
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.owned_folder import COMPARE, check_folder, own_folder
from gapstone.storage.paths import sentence
from gapstone.storage.sealed_json import DamagedError, read_sealed, write_sealed
from gapstone.training.loop import TrainingError
from gapstone.workers.job_processes import JobError, JobNews, run_jobs


def compare(request: CompareRequest, out: Path, console: Console | None = None, command: str = "") -> dict[str, Any]:
    """Train every head with every seed, compare them, write the report; the results, as in results.json.

        >>> compare(Request(Choices("digits"), heads=("gap", "fc"), seeds=3), Path("runs/first"))

    The same call again, after a Ctrl-C or a kill at any moment, trains only what is missing and gives the same numbers.

    Raises: ValueError for requests, data or folders that do not fit together; TrainingError when every trial failed.
    """
    console = console or Terminal()
    request = request.checked()
    _outside_data(out, request)
    check_folder(out, COMPARE)
    untouched = "Stopped before the first trial; nothing was written. The same command starts again."
    kept = f"Stopped before the first trial. The same command goes on from here; kept in {display(out)}"
    with stoppable(untouched) as section, ExitStack() as own, Bars(console, idle="Preparing the comparison") as bars:

        def begin() -> None:
            section.message = lambda: kept if out.exists() else untouched
            own.enter_context(own_folder(out, COMPARE, log=bars.log))
            (out / "trials").mkdir(exist_ok=True)

        what = plan(request, out, bars.log, bars, begin)
        write_sealed(out / "plan.json", what.to_json(), "plan")
        scan_report.write(what.prepared.scan, out)
        missing = finished_trials.missing(what, out, bars.log)
        bars.log(_announce(what, len(missing), out))
        # also where one trial alone is missing: the pass is kept, and costs a second then
        seen = _look(what, out, bars) if what.once and missing else None
        failed = _train(what, missing, out, bars, seen)
        section.message = f"Stopped after the last trial. The same command writes the report; kept in {display(out)}"
        if len(failed) == len(what.trials):
            raise TrainingError(f"every trial failed; the first: {next(iter(failed.values()))}")
        found = gather_results.gather(what, out, failed, command, _speed(what, failed, out, bars))
        with bars.during("Writing the report"):
            page = report_page.write(out)
    report_terminal.render(found, console)
    console.print(f"\nReport: {display(page)}", highlight=False, markup=False, soft_wrap=True)
    return found


def _look(what: ComparisonPlan, out: Path, bars: Bars) -> FeatureCache:
    assert what.once is not None
    with stoppable(f"Stopped during the pass. The same command goes on from here; kept in {display(out)}"):
        seen = run_feature_pass(what.once, what.prepared.store.folder, out / "kept", bars(NAME), bars.log)
    # not deleted: whoever goes back to those heads or images would wait for the pass again
    if unused := seen.leavings(out / "kept"):
        size = sum(path.stat().st_size for path in unused) / 1e6
        bars.log(
            f"{count_noun(len(unused), 'file')} ({size:,.1f} MB) of other heads, settings or images left unused in "
            f"{display(out / 'kept')}."
        )
    return seen


def _train(
    what: ComparisonPlan, missing: list[Trial], out: Path, bars: Bars, seen: FeatureCache | None
) -> dict[str, str]:
    """Run the missing trials; the reason of each that failed, by id."""
    work = partial(_work, what.prepared.store.folder, out / "trials", seen, what.measured)
    failed: dict[str, str] = {}
    tell, ended = bars("Trials"), 0
    at: dict[str, str] = {}
    running = run_jobs(work, missing, what.workers)
    with (
        stoppable(
            lambda: (
                f"Stopped: {ended} of {count_noun(len(missing), 'trial')} done. The same command goes on from here; "
                f"kept in "
                f"{display(out)}"
            )
        ),
        closing(running),
    ):
        for news in running:
            trial: Trial = news.job
            if isinstance(news.what, _DiskFullError):
                running.close()
                raise TrainingError(f"{news.what.reason} The same command goes on from here.")
            if news.kind == "news":
                epoch, epochs, accuracy = news.what
                validation = "" if accuracy is None else f", validation accuracy {100 * accuracy:.1f} %"
                at[trial.id] = f"{_named(trial)}, epoch {epoch}/{epochs}{validation}"
            elif news.kind in ("done", "failed"):
                ended += 1
                at.pop(trial.id, None)
                _tell_end(news, bars, failed)
            tell(ended, len(missing), "; ".join(at.values()))
    return failed


def _speed(what: ComparisonPlan, failed: dict[str, str], out: Path, bars: Bars) -> dict[str, Any]:
    finished = [head for head in what.request.heads if any(t.head == head and t.id not in failed for t in what.trials)]
    bars.log(f"All trials ended; timing {count_noun(len(finished), 'head')} side by side.")
    try:
        with bars.during("Timing the heads side by side"):
            return head_speed.measure_head_speeds(what, finished, out, bars.log)
    except JobError as error:
        bars.log(f"ms per image could not be measured: {display(str(error))}")
        return {}


def _tell_end(news: JobNews, bars: Bars, failed: dict[str, str]) -> None:
    trial: Trial = news.job
    if news.kind == "failed":
        failed[trial.id] = str(news.what)
        bars.log(f"{_named(trial)} failed: {display(str(news.what))}")


def _named(trial: Trial) -> str:
    return f"{trial.head} {'seed' if trial.fold is None else 'fold'} {trial.seed}"


def _work(
    store: Path,
    folder: Path,
    seen: FeatureCache | None,
    measured: dict[str, Any],
    trial: Trial,
    send: Callable[[Any], None],
) -> None:
    """In a process of its own."""
    try:
        trials.run(trial, Store.open(store), folder, lambda *news: send(news), seen, measured)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # says nothing about the trial: the comparison stops
            send(_DiskFullError(sentence(error)))
        raise


@dataclass(frozen=True)
class _DiskFullError:
    reason: str


def _announce(what: ComparisonPlan, missing: int, out: Path) -> str:
    total, seeds = len(what.trials), len(what.prepared.splits)
    repeats = count_noun(seeds, "fold" if what.request.folds else "seed")
    heads = count_noun(len(what.request.heads), "head")
    text = f"{heads} × {repeats} = {count_noun(total, 'trial')} on {what.prepared.backbone}"
    if missing < total:
        text += f", {total - missing} done already"
    if missing:
        text += f"; {what.workers} at a time, {what.prepared.settings.precision}"
        if once := what.once:
            text += ". " + _announce_pass(once, what.pass_seconds)
        elif what.trial_seconds is not None:
            text += f", about {duration(missing * what.trial_seconds / what.workers)}"
    others = {path.name for path in (out / "trials").iterdir()} - {trial.id for trial in what.trials}
    if others:
        verb = "stays" if len(others) == 1 else "stay"
        unused = count_noun(len(others), "trial")
        text += f". {unused} of other settings or images {verb} in {display(out / 'trials')}, unused"
    return text + "."


def _announce_pass(once: FeaturePass, seconds: float | None) -> str:
    views = once.images - len(once.all) - (0 if once.whole else len(once.shown))
    text = f"Frozen backbone, no augmentation: one pass over {count_noun(len(once.all), 'image')}"
    text += f" and {count_noun(views, 'moved or resized test image')}"
    if seconds is not None:
        text += f", about {duration(seconds)}"
    return f"{text}; then heads alone are trained"


def _outside_data(out: Path, request: CompareRequest) -> None:
    data = Path(request.choices.data).expanduser()
    if data.is_dir() and data.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(
            f"--out {display(out)} lies inside DATA {display(data)}: its files would become part of the data; choose "
            f"another."
        )


def report(out: Path, console: Console | None = None) -> Path:
    """Show the results in `out` again and rebuild its page. Raises: ValueError where none are finished there."""
    console = console or Terminal()
    if out.exists() and not out.is_dir():
        beside = (out.parent / "results.json").exists()
        name = f", {display(out.parent)}" if beside else ": what was --out of `gapstone compare`"
        raise ValueError(f"{display(out)} is a file; name the folder of the comparison{name}.")
    try:
        found = read_sealed(out / "results.json", "results")
        if found.get("schema") != gather_results.SCHEMA:
            raise ValueError(
                f"{display(out / 'results.json')} was written by gapstone {display(str(found.get('gapstone')))}, in an "
                f"older form; run the same `gapstone compare` again, which makes it anew of the trials that are there."
            )
        page = report_page.write(out)
    except FileNotFoundError:
        raise ValueError(
            f"{display(out)} holds no finished comparison (no results.json); run the same `gapstone compare` again."
        ) from None
    except DamagedError as error:
        raise ValueError(f"{error}; run the same `gapstone compare` again, which makes it anew.") from error
    report_terminal.render(found, console)
    console.print(f"\nReport: {display(page)}", highlight=False, markup=False, soft_wrap=True)
    return page
