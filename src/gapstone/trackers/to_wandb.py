"""`Wandb`: trials as runs of Weights & Biases, in a group."""

from typing import Any

from gapstone.trackers.tracker import ComparisonEnded, ComparisonStarted, EpochEnded, Tracker, TrialEnded, as_scalar

CONCURRENT = "create_new"
"""Runs beside those that are open: since wandb 0.19.10."""


class Wandb(Tracker):
    """Logs a run of each trial to Weights & Biases, in a group named as the folder of results, and one of the results.

    Examples:
        >>> gs.compare("flowers/", trackers=[gs.trackers.Wandb("flowers", mode="offline")])

    A trial's run (job type `trial`) has its settings as config, losses and validation accuracy of each epoch, and all
    measures of the test images in its summary. The last run (job type `comparison`) has the verdict, a table of the
    heads, and the report, results.json and results.csv as an artifact. A run of yours that is open is left alone.

    Args:
        project: made if it is not there.
        **init: further arguments of `wandb.init`, such as `entity`, `mode="offline"`, `dir`, `tags`.

    Raises:
        ImportError: the package wandb is missing: `pip install 'gapstone[wandb]'`.
    """

    def __init__(self, project: str = "gapstone", **init: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError(f"gs.trackers.Wandb needs pip install 'gapstone[wandb]' (here: {error})") from error
        self.project, self.init = project, init
        self._wandb: Any = wandb
        self._trials: dict[str, Any] = {}

    def comparison_started(self, started: ComparisonStarted) -> None:
        self._group, self._settings, self._trials = started.name, started.settings, {}
        self._comparison = self._start(started.name, "comparison", started.settings | {"out": str(started.out)})

    def epoch_ended(self, epoch: EpochEnded) -> None:
        self._trial(epoch.name, epoch.id).log(epoch.numbers() | {"epoch": epoch.epoch}, step=epoch.epoch)

    def trial_ended(self, trial: TrialEnded) -> None:
        run = self._trial(trial.name, trial.id)
        run.config.update(trial.settings)
        run.summary.update(trial.measures | ({} if trial.failed is None else {"failed": trial.failed}))
        run.finish(exit_code=0 if trial.failed is None else 1)
        del self._trials[trial.id]

    def comparison_ended(self, ended: ComparisonEnded) -> None:
        for run in self._trials.values():
            run.finish(exit_code=1)
        self._trials = {}
        run, results, report = self._comparison, ended.results, ended.report
        if results is None or report is None:
            run.summary["stopped"] = ended.stopped
            run.finish(exit_code=1)
            return
        names = list(results["heads"][0]["metrics"])
        table = self._wandb.Table(columns=["head", *names, "parameters"])
        for head in results["heads"]:
            table.add_data(head["head"], *(head["metrics"][name]["mean"] for name in names), head["parameters"])
        run.log({"heads": table})
        run.summary["verdict"] = results["verdict"]
        artifact = self._wandb.Artifact(f"report-{run.id}", type="report", description=results["verdict"])
        for file in (report, report.with_name("results.json"), report.with_name("results.csv")):
            artifact.add_file(str(file))
        run.log_artifact(artifact)
        run.finish()

    def _trial(self, name: str, id: str) -> Any:
        if id not in self._trials:
            self._trials[id] = self._start(name, "trial", {"trial": id})
        return self._trials[id]

    def _start(self, name: str, kind: str, config: dict[str, Any]) -> Any:
        return self._wandb.init(
            **{
                "project": self.project,
                "name": name,
                "group": self._group,
                "job_type": kind,
                "config": {key: value if isinstance(value, list | dict) else as_scalar(value)
                           for key, value in config.items()},
                "reinit": CONCURRENT,
                # what is printed is not this run's: several are open; and each would print twenty lines of its own
                "settings": self._wandb.Settings(console="off", silent=kind == "trial"),
            }
            | self.init
        )  # fmt: skip
