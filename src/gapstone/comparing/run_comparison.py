"""compare(): plan, train the missing trials, measure, report. An interrupted comparison can be resumed."""

from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from gapstone.comparing import finished_trials, gather_results, head_speed, kept_models, trials
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.feature_cache import FeatureCache
from gapstone.comparing.feature_pass import NAME, FeaturePass, run_feature_pass
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.listener import NOBODY, Listener, trial_name
from gapstone.comparing.looks import record_look
from gapstone.comparing.plan import ComparisonPlan, plan_comparison
from gapstone.comparing.report import report_page, report_terminal
from gapstone.comparing.request_as_toml import as_toml
from gapstone.comparing.shared_answers import remove_shared
from gapstone.comparing.tested_values import mean_of
from gapstone.comparing.trial_measures import MOST_PROBABILITIES
from gapstone.comparing.trials import Trial
from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars, duration
from gapstone.console.terminal import Terminal
from gapstone.data import scan_report
from gapstone.data.open_source import check_outside_data
from gapstone.data.python_objects import described
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.owned_folder import COMPARE, check_folder, own_folder
from gapstone.storage.paths import format_bytes
from gapstone.storage.sealed_json import DamagedError, read_sealed, write_sealed
from gapstone.training.loop import TrainingError
from gapstone.training.training_data import WORTH_SAYING
from gapstone.workers.job_processes import JobError, run_jobs, start_server

AFTER, TIMING = 8.0, 9.0
"""Seconds after the last trial: the model and the report; timing the heads."""


def compare(
    request: CompareRequest,
    out: Path,
    console: Console | None = None,
    command: str = "",
    listener: Listener = NOBODY,
) -> dict[str, Any]:
    """Train every head with every seed, compare them, and write the report.

        >>> compare(CompareRequest(TrainOptions("digits"), heads=("gap", "fc"), seeds=3), Path("runs/first"))

    After Ctrl-C or a kill at any moment, the same call trains only the missing trials and gives the same numbers.
    `command` is the command line, for the report; `listener` is told of each epoch and each trial. Returns the
    results, as in results.json.

    Raises:
        ValueError: a request, data or folder that do not fit together.
        TrainingError: every trial failed.
    """
    console = console or Terminal()
    config, request = as_toml(request), request.checked()
    check_outside_data(out, request.choices.data)
    check_folder(out, COMPARE)
    untouched = "Stopped before the first trial; nothing was written. The same command starts again."
    resumable = f"Stopped before the first trial. The same command goes on from here; kept in {display(out)}"
    with stoppable(untouched) as section, ExitStack() as stack, Bars(console, idle="Preparing the comparison") as bars:

        def begin() -> None:
            section.message = lambda: resumable if out.exists() else untouched
            stack.enter_context(own_folder(out, COMPARE, log=bars.log))
            (out / "trials").mkdir(exist_ok=True)

        # it imports what trials need while the images are scanned and decoded
        start_server(["timm"] if _likely_of_timm(request) else [])
        plan = plan_comparison(request, out, bars.log, bars, begin)
        write_sealed(out / "plan.json", plan.to_json(), "plan")
        scan_report.write(plan.prepared.scan, out)
        missing = finished_trials.missing(plan, out, bars.log)
        bars.log(_announce(plan, missing, out))
        listener.comparison_started(plan, missing, out, bars.log)
        stack.push(lambda _, error, __: listener.comparison_stopped(error) if error else None)
        # run the pass even for one missing trial: its rows are on disk, so it takes a second
        cache = _run_feature_pass(plan, out, bars) if plan.feature_pass and missing else None
        failed = _train(plan, missing, out, bars, cache, listener)
        section.message = f"Stopped after the last trial. The same command writes the report; kept in {display(out)}"
        if all(trial.id in failed for trial in plan.trials):
            raise TrainingError(f"every trial failed; the first: {next(iter(failed.values()))}")
        speed = _speed(plan, failed, out, bars)
        done = finished_trials.read_finished(plan, out)
        models = _write_models(plan, done, out, cache, bars)
        remove_shared(out / "kept")
        look = record_look(plan, out, bars.log)
        with bars.during("Comparing the heads"):
            results = gather_results.gather(plan, done, out, failed, command, config, speed, models, look)
        with bars.during("Writing the report"):
            page = report_page.write(out)
        with bars.during("Telling the trackers"):
            listener.comparison_ended(results, page)
    _print_results(results, page, console)
    return results


def _likely_of_timm(request: CompareRequest) -> bool:
    """Whether the backbone is timm's, as far as can be told before the images are looked at: photos' is."""
    backbone = request.choices.backbone
    if backbone is None:
        return request.weights is None and described(request.choices.data) != "digits" and request.mode != "scratch"
    return backbone.startswith("timm:")


def _print_results(results: dict[str, Any], page: Path, console: Console) -> None:
    if not console.is_jupyter:  # a notebook shows what `gs.compare` returns
        report_terminal.render(results, console)
    model, *others = results.get("models") or [None]  # results of earlier versions have none
    if model is not None:
        line = f"\nModel: {display(page.parent / model['file'])}, {kept_models.describe(model)}"
        if others:
            line += f"; of each head: {display(page.parent / kept_models.FOLDER)}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{'' if model else chr(10)}Report: {display(page)}", highlight=False, markup=False, soft_wrap=True)


def _score(plan: ComparisonPlan, finished: FinishedTrial) -> float:
    """The metric of the trial, higher where it is better."""
    metric, _ = plan.metric
    return metric.unit.gain(mean_of(plan, metric, finished))


def _write_models(
    plan: ComparisonPlan, done: dict[str, list[FinishedTrial]], out: Path, cache: FeatureCache | None, bars: Bars
) -> list[dict[str, Any]]:
    """Write the models that are kept; returns their entries in results.json, the best head's first."""
    files = kept_models.files_to_keep(done, plan.request.keep)
    jobs: list[kept_models.Job] = []
    for file, one in files.items():
        if kept_models.is_written(file, one, out):
            continue
        weights: bytes | FeatureCache | None = kept_models.stored_weights(one, out, bars.log)
        if weights is None and one.trial.frozen:
            weights = cache = cache or _run_feature_pass(plan, out, bars)
        if weights is not None:
            seen = plan.prepared.trained_on(one.trial.train, one.trial.validation)
            jobs.append((one.trial, weights, file, seen))
            continue
        bars.log(
            f"The model of {trial_name(one.trial)} is not there: it was not kept when it was trained, or is damaged. "
            f"Without {display(out / 'trials' / one.trial.id)} the same command trains it again."
        )
    try:
        if jobs:
            with bars.during("Writing the models"):
                kept_models.write_models(plan.prepared.store.folder, out, jobs)
    except JobError as error:  # the weights stay
        bars.log(f"The models could not be written: {display(str(error))}")
    else:
        kept_models.drop_weights(out, plan.all_trials)
    there = {file: one for file, one in files.items() if kept_models.is_written(file, one, out)}
    entries = [kept_models.entry(f"{kept_models.FOLDER}/{file}", one) for file, one in there.items()]
    best = kept_models.best_trial(done.values(), partial(_score, plan))
    for file, one in there.items():
        if one is best:
            kept_models.put_first(file, out)
            entries.insert(0, kept_models.entry(kept_models.FILE, one))
    return entries


def _run_feature_pass(plan: ComparisonPlan, out: Path, bars: Bars) -> FeatureCache:
    assert plan.feature_pass is not None
    remove_shared(out / "kept")  # what a run that was killed left may be damaged, and is quickly made
    with stoppable(f"Stopped during the pass. The same command goes on from here; kept in {display(out)}"):
        cache = run_feature_pass(plan.feature_pass, plan.prepared.store.folder, out / "kept", bars(NAME), bars.log)
    # not deleted: going back to those heads or images would need the pass again
    if unused := cache.unused_files(out / "kept"):
        size = sum(path.stat().st_size for path in unused) / 1e6
        bars.log(
            f"{count_noun(len(unused), 'file')} ({size:,.1f} MB) of other heads, settings or images left unused in "
            f"{display(out / 'kept')}."
        )
    return cache


def _train(
    plan: ComparisonPlan,
    missing: list[Trial],
    out: Path,
    bars: Bars,
    cache: FeatureCache | None,
    listener: Listener,
) -> dict[str, str]:
    """Run the missing trials; returns the reason of each failure by trial id."""
    keep = plan.request.keep != "none"
    job = partial(trials.run_job, plan.prepared.store.folder, out / "trials", cache, plan.measured, keep)
    failed: dict[str, str] = {}
    progress, ended = bars("Trials"), 0
    status: dict[str, str] = {}
    running = run_jobs(job, missing, plan.workers)
    with (
        stoppable(
            lambda: (
                f"Stopped: {ended} of {count_noun(len(missing), 'trial')} done. The same command goes on from here; "
                f"kept in {display(out)}"
            )
        ),
        closing(running),
    ):
        for news in running:
            trial: Trial = news.job
            if isinstance(news.what, trials.DiskFullError):
                running.close()
                raise TrainingError(f"{news.what.reason} The same command goes on from here.")
            if news.kind == "news":
                epoch, epochs, numbers = news.what
                accuracy = numbers.validation_accuracy
                what = "validation images right in all labels" if trial.multi_label else "validation accuracy"
                validation = "" if accuracy is None else f", {what} {100 * accuracy:.1f} %"
                status[trial.id] = f"{trial_name(trial)}, epoch {epoch}/{epochs}{validation}"
                listener.epoch_ended(trial, epoch, epochs, numbers)
            elif news.kind in ("done", "failed"):
                ended += 1
                status.pop(trial.id, None)
                if news.kind == "failed":
                    failed[trial.id] = str(news.what)
                    bars.log(f"{trial_name(trial)} failed: {display(str(news.what))}")
                elif plan.request.keep == "best" and not trial.frozen:
                    alike = [one for one in plan.trials if one.head == trial.head]
                    kept_models.prune_weights(out, finished_trials.facts_of(alike, out))
                listener.trial_ended(trial, failed.get(trial.id), out)
            progress(ended, len(missing), "; ".join(status.values()))
    return failed


def _speed(plan: ComparisonPlan, failed: dict[str, str], out: Path, bars: Bars) -> dict[str, Any]:
    if plan.request.quick:
        return {}
    finished = [head for head in plan.request.heads if any(t.head == head and t.id not in failed for t in plan.trials)]
    bars.log(f"All trials ended; timing {count_noun(len(finished), 'head')} side by side.")
    try:
        with bars.during("Timing the heads side by side"):
            return head_speed.measure_head_speeds(plan, finished, out, bars.log)
    except JobError as error:
        bars.log(f"ms per image could not be measured: {display(str(error))}")
        return {}


def _announce(plan: ComparisonPlan, trials: list[Trial], out: Path) -> str:
    """The message before the trials start: how many, where, and how long they take."""
    total, seeds, missing = len(plan.all_trials), len(plan.prepared.splits), len(trials)
    repeats = count_noun(seeds, "fold" if plan.request.folds else "seed")
    heads = count_noun(len(plan.request.heads), "head")
    points = f" × {len(plan.curve) + 1} numbers of labelled images" if plan.curve else ""
    text = f"{heads} × {repeats}{points} = {count_noun(total, 'trial')} on {plan.prepared.backbone}"
    grid, trainings = plan.trials[0].tuning, plan.trials[0].trainings
    if grid is not None and trainings > 1:
        rates, decays = len(grid.learning_rates), count_noun(len(grid.weight_decays), "weight decay")
        text += f", each trained {trainings} times (--tune: {count_noun(rates, 'learning rate')} × {decays})"
    if missing < total:
        text += f", {total - missing} done already"
    if missing:
        text += f"; {plan.workers} at a time, {plan.prepared.settings.precision}"
        if feature_pass := plan.feature_pass:
            text += ". " + _announce_pass(feature_pass, plan, trials)
        elif plan.trial_seconds is not None:
            text += f", about {duration(missing * plan.trial_seconds / plan.workers)}"
    text += _announce_probabilities(plan)
    others = {path.name for path in (out / "trials").iterdir()} - {trial.id for trial in plan.all_trials}
    if others:
        verb = "stays" if len(others) == 1 else "stay"
        unused = count_noun(len(others), "trial")
        text += f". {unused} of other settings or images {verb} in {display(out / 'trials')}, unused"
    return text + "."


def _announce_probabilities(plan: ComparisonPlan) -> str:
    """What the probabilities of all test images take on disk, or that they are not stored; "" if it is little."""
    classes = len(plan.prepared.labels)
    of_trials = [len(trial.test) * classes for trial in plan.all_trials]
    if max(of_trials) > MOST_PROBABILITIES:
        return (
            f". The probabilities of all {classes:,} classes would be more than {MOST_PROBABILITIES:,} numbers in each "
            f"trial and are not stored: it keeps what an image counts for each metric"
        )
    size = 4 * (sum(of_trials) + sum(len(trial.test) * classes for trial in plan.trials))  # in trials, and all together
    return f". Probabilities of all classes: {format_bytes(size)} on disk" if size > WORTH_SAYING else ""


def _announce_pass(feature_pass: FeaturePass, plan: ComparisonPlan, missing: list[Trial]) -> str:
    changed = len(feature_pass.changes) * len(feature_pass.robust)
    text = f"Frozen backbone, no augmentation: one pass over {count_noun(len(feature_pass.all), 'image')}"
    text += f" and {count_noun(changed, 'moved or resized test image')}" if changed else ""
    again = feature_pass.images - len(feature_pass.all) - changed
    text += f", and again over {count_noun(again, 'image')} for their maps" if again else ""
    of_pass, of_heads = plan.pass_seconds, plan.heads_seconds(missing)
    if of_pass is not None:
        text += f", about {duration(of_pass)}"
    stored = plan.measured.get("image_bytes", 0.0) * feature_pass.images
    if stored > WORTH_SAYING:
        text += f" and {format_bytes(int(stored))} on disk"
    text += "; then heads alone are trained, each at the learning rate and decay that validation images choose"
    if of_pass is not None and of_heads is not None:
        after = AFTER if plan.request.quick else AFTER + TIMING
        text += f", about {duration(of_heads)}. In all about {duration(of_pass + of_heads + after)}"
    return text


def read_results(out: Path) -> dict[str, Any]:
    """The results in a folder, as in results.json. Raises ValueError if it has no finished ones."""
    if out.exists() and not out.is_dir():
        beside = (out.parent / "results.json").exists()
        name = f", {display(out.parent)}" if beside else ": what was --out of `gapstone compare`"
        raise ValueError(f"{display(out)} is a file; name the folder of the comparison{name}.")
    try:
        results = read_sealed(out / "results.json", "results")
    except FileNotFoundError:
        raise ValueError(
            f"{display(out)} holds no finished comparison (no results.json); run the same `gapstone compare` again."
        ) from None
    except DamagedError as error:
        raise _damaged(error) from error
    if results.get("schema") != gather_results.SCHEMA:
        raise ValueError(
            f"{display(out / 'results.json')} was written by gapstone {display(str(results.get('gapstone')))}, in an "
            f"older form; run the same `gapstone compare` again, which makes it anew of the trials that are there."
        )
    return results


def _damaged(error: DamagedError) -> ValueError:
    return ValueError(f"{error}; run the same `gapstone compare` again, which makes it anew.")


def report(out: Path, console: Console | None = None) -> Path:
    """Print the results in `out` again and rebuild the report. Raises ValueError if `out` has no finished results."""
    console = console or Terminal()
    results = read_results(out)
    try:
        page = report_page.write(out)
    except DamagedError as error:
        raise _damaged(error) from error
    _print_results(results, page, console)
    return page
