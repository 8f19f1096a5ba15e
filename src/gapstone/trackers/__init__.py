"""Trackers of experiments, which a comparison tells of its trials: TensorBoard, MLflow, Weights & Biases."""

from gapstone.trackers.by_name import tracker_of as tracker_of
from gapstone.trackers.by_name import trackers_of as trackers_of
from gapstone.trackers.to_mlflow import MLflow as MLflow
from gapstone.trackers.to_tensorboard import TensorBoard as TensorBoard
from gapstone.trackers.to_wandb import Wandb as Wandb
from gapstone.trackers.tracker import ComparisonEnded as ComparisonEnded
from gapstone.trackers.tracker import ComparisonStarted as ComparisonStarted
from gapstone.trackers.tracker import EpochEnded as EpochEnded
from gapstone.trackers.tracker import Tracker as Tracker
from gapstone.trackers.tracker import TrialEnded as TrialEnded

__all__ = [
    "ComparisonEnded", "ComparisonStarted", "EpochEnded", "MLflow", "TensorBoard", "Tracker", "TrialEnded", "Wandb",
    "tracker_of", "trackers_of",
]  # fmt: skip
