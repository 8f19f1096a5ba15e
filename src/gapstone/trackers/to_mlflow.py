"""`MLflow`: a comparison as a run, its trials as runs below it."""

import re
import time
from pathlib import Path
from typing import Any

from gapstone.trackers.tracker import (
    ComparisonEnded,
    ComparisonStarted,
    EpochEnded,
    Tracker,
    TrialEnded,
    as_scalar,
    finite,
    in_markdown,
)

LONGEST = 500
"""Characters of a parameter: servers from before MLflow 2.8 take no more."""


class MLflow(Tracker):
    """Logs a run of the comparison to MLflow, and below it a run of each trial.

    Examples:
        >>> gs.compare("flowers/", trackers=[gs.trackers.MLflow("flowers", tracking_uri="http://localhost:5000")])

    A trial's run has its settings as parameters, losses and validation accuracy of each epoch, and all measures of the
    test images. The comparison's run has the settings, each head's mean of all metrics, the verdict with a table of
    the heads as its description, and the report, results.json and results.csv as artifacts. It needs no active run and
    leaves one of yours alone.

    Args:
        experiment: made if it is not there.
        tracking_uri: a server, a database (`sqlite:///mlflow.db`) or a folder; None: as MLflow has it, such as by
            MLFLOW_TRACKING_URI.

    Raises:
        ImportError: the package mlflow (or mlflow-skinny) is missing: `pip install 'gapstone[mlflow]'`.
    """

    def __init__(self, experiment: str = "gapstone", tracking_uri: str | Path | None = None) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ImportError(f"gs.trackers.MLflow needs pip install 'gapstone[mlflow]' (here: {error})") from error
        self.experiment, self.tracking_uri = experiment, None if tracking_uri is None else str(tracking_uri)
        self._mlflow: Any = mlflow
        self._trials: dict[str, str] = {}

    def comparison_started(self, started: ComparisonStarted) -> None:
        self._client = self._mlflow.MlflowClient(self.tracking_uri)
        found = self._client.get_experiment_by_name(self.experiment)
        self._id = found.experiment_id if found is not None else self._client.create_experiment(self.experiment)
        tags = {"gapstone.out": str(started.out)}
        self._run = self._client.create_run(self._id, run_name=started.name, tags=tags).info.run_id
        self._trials = {}
        self._log(self._run, started.settings)

    def epoch_ended(self, epoch: EpochEnded) -> None:
        self._log(self._trial(epoch.name, epoch.id), metrics=epoch.numbers(), step=epoch.epoch)

    def trial_ended(self, trial: TrialEnded) -> None:
        run = self._trial(trial.name, trial.id)
        self._log(run, trial.settings, trial.measures)
        if trial.failed is not None:
            self._client.set_tag(run, "gapstone.failed", trial.failed)
        self._client.set_terminated(run, "FINISHED" if trial.failed is None else "FAILED")
        del self._trials[trial.id]

    def comparison_ended(self, ended: ComparisonEnded) -> None:
        for run in self._trials.values():
            self._client.set_terminated(run, "KILLED")
        self._trials = {}
        if ended.results is None or ended.report is None:
            self._client.set_tag(self._run, "gapstone.stopped", ended.stopped)
            self._client.set_terminated(self._run, "KILLED")
            return
        self._client.set_tag(self._run, "mlflow.note.content", in_markdown(ended.results))
        self._client.set_tag(self._run, "gapstone.verdict", ended.results["verdict"])
        for head in ended.results["heads"]:
            means = {f"{head['head']}/{name}": stat["mean"] for name, stat in head["metrics"].items()}
            self._log(self._run, metrics=finite(means))
        for folder in (ended.report, ended.report.with_name("results.json"), ended.report.with_name("results.csv")):
            self._client.log_artifact(self._run, str(folder))
        self._client.set_terminated(self._run, "FINISHED")

    def _trial(self, name: str, id: str) -> str:
        if id not in self._trials:
            tags = {"mlflow.parentRunId": self._run, "gapstone.trial": id}
            self._trials[id] = self._client.create_run(self._id, run_name=name, tags=tags).info.run_id
        return self._trials[id]

    def _log(
        self, run: str, params: dict[str, Any] | None = None, metrics: dict[str, float] | None = None, step: int = 0
    ) -> None:
        now, entities = int(1000 * time.time()), self._mlflow.entities
        self._client.log_batch(
            run,
            metrics=[entities.Metric(_key(name), value, now, step) for name, value in (metrics or {}).items()],
            params=[
                entities.Param(_key(name), str(as_scalar(value))[:LONGEST]) for name, value in (params or {}).items()
            ],
        )


def _key(name: str) -> str:
    """A name as MLflow takes them.

    >>> _key("gem:p=learned/accuracy")
    'gem_p_learned/accuracy'
    """
    return re.sub(r"[^\w\-. /]", "_", name)
