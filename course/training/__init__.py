"""The training loop of every lesson: `fit`, `evaluate`, and what a run will cost, `estimate`."""

from course.training.averages import MovingAverage, update_average
from course.training.evaluation import estimate, evaluate, pick_device
from course.training.history import Epoch, Evaluation, History
from course.training.loop import PRECISIONS, fit, warmup_cosine

__all__ = [
    "PRECISIONS",
    "Epoch",
    "Evaluation",
    "History",
    "MovingAverage",
    "estimate",
    "evaluate",
    "fit",
    "pick_device",
    "update_average",
    "warmup_cosine",
]
