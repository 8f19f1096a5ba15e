"""Trackers hear a real comparison; what they wrote is read back by the packages' own readers, where they are there."""

import io
import json
import math
import struct
import time
from types import SimpleNamespace

import numpy as np
import pytest

import gapstone as gs
from gapstone.comparing.trials import EpochNumbers
from gapstone.library.listeners import Callbacks
from gapstone.library.python_words import PythonTerminal
from gapstone.storage.sealed_json import read_sealed
from gapstone.trackers import MLflow, TensorBoard, Tracker, Wandb, tracker_of, trackers_of
from gapstone.trackers.to_mlflow import _key
from gapstone.trackers.tracker import ComparisonEnded, as_scalar, finite

HEARD = ("comparison_started", "epoch_ended", "trial_ended", "comparison_ended")


class Recorder(Tracker):
    """Keeps what it hears, to tell it again to others."""

    def __init__(self):
        self.heard = []
        for name in HEARD:
            setattr(self, name, lambda event, name=name: self.heard.append((name, event)))

    def of(self, name):
        return [event for heard, event in self.heard if heard == name]

    def tell(self, tracker, stop=False):
        heard = self.heard[:-2] if stop else self.heard
        for name, event in heard:
            getattr(tracker, name)(event)
        if stop:
            tracker.comparison_ended(ComparisonEnded(None, None, "Ctrl-C"))


class Broken(Tracker):
    def trial_ended(self, trial):
        raise OSError("no space left\non the server")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(what was heard, the results, what was printed) of two heads and a tracker that breaks."""
    recorder, out = Recorder(), tmp_path_factory.mktemp("tracked") / "digits run"
    with pytest.MonkeyPatch.context() as patch:
        printed = io.StringIO()
        patch.setattr("gapstone.library.compare.console_of", lambda progress: PythonTerminal(file=printed))
        arguments = {"heads": ["gap", "gem:p=learned"], "seeds": 1, "limit": 60, "epochs": 2, "quick": True}
        gs.compare("digits", **arguments, out=out, trackers=[Broken(), recorder])
    return recorder, read_sealed(out / "results.json", "results"), printed.getvalue()


def test_what_a_tracker_hears(compared):
    recorder, results, said = compared
    (started,), trials, (ended,) = recorder.of(HEARD[0]), recorder.of(HEARD[2]), recorder.of(HEARD[3])
    assert recorder.heard[0][1] is started
    assert recorder.heard[-1][1] is ended
    assert (started.name, started.trials) == ("digits run", 2)
    assert started.settings.items() >= {"metric": "accuracy", "epochs": 2, "data": "digits"}.items()
    settings = results["settings"]
    assert {key: settings[key] for key in started.settings.keys() & settings} == {
        key: started.settings[key] for key in started.settings.keys() & settings
    }
    assert ended.results == results
    for head, trial in zip(results["heads"], sorted(trials, key=lambda one: one.head), strict=True):
        assert (trial.name, trial.settings["head"]) == (f"{head['head']} seed 0", head["head"])
        for name in ("accuracy", "auroc", "nll", "brier"):
            assert trial.measures[f"test/{name}"] == pytest.approx(head["metrics"][name]["values"][0])
        assert trial.measures["model/parameters"] == head["parameters"]
        epochs = [one for one in recorder.of("epoch_ended") if one.id == trial.id]
        (curve,) = head["curves"]
        assert [one.epoch for one in epochs] == curve["epoch"]
        assert [one.train_loss for one in epochs] == curve["train_loss"]
        assert [one.validation_accuracy for one in epochs] == curve["validation_accuracy"]
        assert all(one.validation_loss > 0 and len(one.numbers()) == 3 for one in epochs)
    # the broken one was told of the first trial, and the comparison went on
    (line,) = [line for line in said.splitlines() if "Broken" in line]
    assert line == (
        "Broken failed and is told nothing more: OSError: no space left on the server. The comparison goes on."
    )


def test_an_error_in_a_function_of_the_users_ends_the_comparison_and_trackers_are_told(tmp_path):
    def stop(epoch):
        raise RuntimeError("enough")

    recorder, small = Recorder(), {"heads": ["gap"], "seeds": 1, "limit": 20, "epochs": 1, "quick": True}
    with pytest.raises(RuntimeError, match="enough"):
        gs.compare("digits", **small, out=tmp_path / "out", progress=False, trackers=[recorder], on_epoch=stop)
    assert [name for name, _ in recorder.heard] == [HEARD[0], HEARD[3]]
    assert recorder.heard[-1][1] == ComparisonEnded(None, None, "enough")


def test_a_tracker_that_cannot_begin(compared):
    class CannotBegin(Tracker):
        def comparison_started(self, started):
            raise ConnectionError("no server at x")

    (started,), first, last = compared[0].of(HEARD[0]), Recorder(), Recorder()
    with pytest.raises(ValueError, match=r"trackers: CannotBegin cannot begin: ConnectionError: no server at x\. No "):
        Callbacks(trackers=[first, CannotBegin(), last]).begin(started)
    assert first.heard == [(HEARD[0], started), (HEARD[3], ComparisonEnded(None, None, "no server at x"))]
    assert not last.heard


def test_a_frozen_backbone_tells_the_epochs_of_the_candidate_that_was_chosen():
    recorder = Recorder()
    trial = SimpleNamespace(head="gap", seed=0, fold=None, id="x", test_only=False, tuning=object())
    callbacks = Callbacks(trackers=[recorder])
    callbacks.epoch_ended(trial, 1, 2, EpochNumbers(9.0, 9.0, 0.0))  # the best so far: of another candidate
    assert not recorder.heard
    history = {"train_loss": [3.0, 2.0], "validation_loss": [2.5, 2.0], "validation_accuracy": [0.1, 0.4]}
    callbacks._tell_history(trial, history)
    assert [(one.epoch, one.epochs, *one.numbers().values()) for one in recorder.of("epoch_ended")] == [
        (1, 2, 3.0, 2.5, 0.1), (2, 2, 2.0, 2.0, 0.4),
    ]  # fmt: skip
    callbacks._tell_history(trial, {"train_loss": [3.0], "validation_loss": [], "validation_accuracy": []})
    assert recorder.heard[-1][1].numbers() == {"train/loss": 3.0}


def test_names(monkeypatch):
    mine = Tracker()
    assert trackers_of([mine]) == [mine]
    with pytest.raises(ValueError, match=r"--trackers tenser: expected tensorboard:FOLDER, mlflow:EXPERIMENT"):
        tracker_of("tenser")
    with pytest.raises(TypeError, match=r"a list, such as trackers=\['mlflow'\]"):
        trackers_of("mlflow")
    with pytest.raises(TypeError, match=r"trackers: <object .* is no tracker"):
        tracker_of(object())
    for name, extra in (("mlflow", "mlflow"), ("wandb", "wandb")):
        monkeypatch.setitem(__import__("sys").modules, name, None)
        with pytest.raises(ImportError, match=rf"needs pip install 'gapstone\[{extra}\]'"):
            tracker_of(name)
    assert _key("gem:p=learned/a b") == "gem_p_learned/a b"
    assert finite({"a": 1, "b": None, "c": math.nan, "d": np.float32(2)}) == {"a": 1.0, "d": 2.0}
    assert [as_scalar(value) for value in (True, 0.1, None, [1])] == [True, 0.1, "None", "[1]"]


def test_tensorboard(compared, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recorder, results, _ = compared
    recorder.tell(TensorBoard(tmp_path), stop=True)
    recorder.tell(TensorBoard(tmp_path))  # as after a stop: TensorBoard shows these
    runs = {path.name: path for path in (tmp_path / "digits-run").iterdir()}
    assert set(runs) == {"gap-seed-0", "gem-p=learned-seed-0", "comparison"}
    for trial in recorder.of("trial_ended"):
        events = EventAccumulator(str(runs[f"{trial.head.replace(':', '-')}-seed-0"])).Reload()
        epochs = [one for one in recorder.of("epoch_ended") if one.id == trial.id]
        found = [(one.step, one.value) for one in events.Scalars("validation/loss")]
        assert found == [(one.epoch, pytest.approx(one.validation_loss)) for one in epochs]
        assert events.Scalars("test/accuracy")[-1].value == pytest.approx(trial.measures["test/accuracy"])
        assert "_hparams_/session_start_info" in events.summary_metadata
    text = EventAccumulator(str(runs["comparison"])).Reload().Tensors("verdict/text_summary")
    assert results["verdict"] in text[-1].tensor_proto.string_val[0].decode()


def test_mlflow(compared, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    recorder, results, _ = compared
    recorder.tell(MLflow("flowers", tmp_path), stop=True)
    recorder.tell(MLflow("flowers", tmp_path))
    client = mlflow.MlflowClient(str(tmp_path))
    experiment = client.get_experiment_by_name("flowers").experiment_id
    runs = client.search_runs([experiment])
    parents = {run.info.status: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert set(parents) == {"KILLED", "FINISHED"}
    parent = parents["FINISHED"]
    assert parent.info.run_name == "digits run"
    assert parent.data.params["backbone"] == "nin"
    assert results["verdict"] in parent.data.tags["mlflow.note.content"]
    artifacts = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"report.html", "results.json", "results.csv"}
    for head in results["heads"]:
        found = parent.data.metrics[f"{_key(head['head'])}/accuracy"]
        assert found == pytest.approx(head["metrics"]["accuracy"]["mean"])
    children = {run.info.run_name: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    for trial in recorder.of("trial_ended"):
        run = children.pop(trial.name)
        assert (run.info.status, run.data.params["head"], run.data.tags["gapstone.trial"]) == (
            "FINISHED", trial.head, trial.id,
        )  # fmt: skip
        assert run.data.metrics["test/auroc"] == pytest.approx(trial.measures["test/auroc"])
        history = client.get_metric_history(run.info.run_id, "train/loss")
        epochs = [one for one in recorder.of("epoch_ended") if one.id == trial.id]
        assert [(one.step, one.value) for one in history] == [(one.epoch, one.train_loss) for one in epochs]
    assert not children


def test_wandb(compared, tmp_path):
    pytest.importorskip("wandb")
    recorder, results, _ = compared
    recorder.tell(Wandb("flowers", mode="offline", dir=tmp_path))
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    for _ in range(100):  # wandb's own process writes the last block after a run has finished
        if all("exit" in run for run in map(offline_run, files)):
            break
        time.sleep(0.1)
    runs = {run.pop("name"): run for run in map(offline_run, files)}
    assert set(runs) == {"digits run", "gap seed 0", "gem:p=learned seed 0"}
    assert {run["group"] for run in runs.values()} == {"digits run"}
    for trial in recorder.of("trial_ended"):
        run = runs[trial.name]
        assert (run["job"], run["exit"]) == ("trial", 0)
        assert run["config"]["head"] == trial.head
        assert run["summary"]["test/accuracy"] == trial.measures["test/accuracy"]
        epochs = [one for one in recorder.of("epoch_ended") if one.id == trial.id]
        assert [row["train/loss"] for row in run["history"]] == [one.train_loss for one in epochs]
    assert runs["digits run"]["summary"]["verdict"] == results["verdict"]
    assert runs["digits run"]["job"] == "comparison"
    assert runs["digits run"]["files"] >= {"report.html", "results.json", "results.csv"}


def log_records(content):
    """Records of a file as LevelDB's logs are, after wandb's header of 7 bytes; its package has no reader in Python."""
    at, record = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def offline_run(path):
    """What a run's file holds."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {"config": {}, "summary": {}, "history": [], "files": set()}

    def values(items):
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

    for content in log_records(path.read_bytes()):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"name": record.run.display_name, "group": record.run.run_group, "job": record.run.job_type}
            found["config"] |= values(record.run.config.update)
        elif kind == "config":
            found["config"] |= values(record.config.update)
        elif kind == "summary":
            found["summary"] |= values(record.summary.update)
        elif kind == "history":
            found["history"].append(values(record.history.item))
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
        elif kind == "request" and record.request.HasField("log_artifact"):
            found["files"] |= {entry.path for entry in record.request.log_artifact.artifact.manifest.contents}
        elif kind == "artifact":
            found["files"] |= {entry.path for entry in record.artifact.manifest.contents}
    return found
