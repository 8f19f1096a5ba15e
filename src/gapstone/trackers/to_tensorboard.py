"""`TensorBoard`: trials as runs in a folder that `tensorboard --logdir` shows."""

import re
from pathlib import Path
from typing import Any

from gapstone.trackers.tracker import (
    ComparisonEnded,
    ComparisonStarted,
    EpochEnded,
    Tracker,
    TrialEnded,
    as_scalar,
    in_markdown,
)


class TensorBoard(Tracker):
    """Writes a run of each trial for TensorBoard.

    Examples:
        >>> gs.compare("flowers/", trackers=[gs.trackers.TensorBoard("runs/tb")])

    then `tensorboard --logdir runs/tb`. Losses and validation accuracy are charts; the HPARAMS page has the settings
    and measures of each trial; TEXT has the verdict and a table of the heads.

    Args:
        folder: where runs are written, each in `folder/NAME/TRIAL`; NAME is that of the folder of results.

    Raises:
        ImportError: the package tensorboard is missing: `pip install 'gapstone[tensorboard]'`.
    """

    def __init__(self, folder: str | Path = "runs/tensorboard") -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                f"gs.trackers.TensorBoard needs pip install 'gapstone[tensorboard]' (here: {error})"
            ) from error
        self.folder = Path(folder)
        self._open: Any = SummaryWriter
        self._writers: dict[str, Any] = {}

    def comparison_started(self, started: ComparisonStarted) -> None:
        self._runs = self.folder / _file_name(started.name)
        self._writers = {}
        self._runs.mkdir(parents=True, exist_ok=True)  # fail now where nothing can be written
        self._settings = started.settings

    def epoch_ended(self, epoch: EpochEnded) -> None:
        writer = self._writer(epoch.name, epoch.id)
        for name, value in epoch.numbers().items():
            writer.add_scalar(name, value, epoch.epoch)

    def trial_ended(self, trial: TrialEnded) -> None:
        writer = self._writer(trial.name, trial.id)
        if trial.failed is not None:
            writer.add_text("failed", trial.failed)
        # run_name ".": in the same run, and not in one below it, named by the time
        writer.add_hparams(trial.settings, trial.measures, run_name=".")
        self._writers.pop(trial.id).close()

    def comparison_ended(self, ended: ComparisonEnded) -> None:
        for writer in self._writers.values():  # trials that were stopped
            writer.close()
        self._writers = {}
        with self._open(self._runs / "comparison") as writer:
            if ended.results is None:
                writer.add_text("stopped", str(ended.stopped))
                return
            writer.add_text("verdict", f"{in_markdown(ended.results)}\n\nReport: `{ended.report}`")
            rows = [f"| {name} | {as_scalar(value)} |" for name, value in self._settings.items()]
            writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def _writer(self, name: str, id: str) -> Any:
        if id not in self._writers:
            # of a trial that was stopped and is trained again, TensorBoard shows the new epochs alone
            self._writers[id] = self._open(self._runs / _file_name(name), purge_step=0)
        return self._writers[id]


def _file_name(name: str) -> str:
    """>>> _file_name("gem:p=learned seed 0")
    'gem-p=learned-seed-0'
    """
    return re.sub(r"[^\w.+=,]+", "-", name).strip(".-") or "comparison"
