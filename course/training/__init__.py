"""The training loop of every lesson: `fit`, `evaluate`, and what a run will cost, `estimate`."""

from course.training.averages import MovingAverage, update_average
from course.training.evaluation import estimate, evaluate, evaluate_together
from course.training.history import Epoch, Evaluation, History
from course.training.learner import PRECISIONS
from course.training.loop import fit, warmup_cosine
from course.training.processes import Processes, connect, disconnect, in_turn, pick_device

__all__ = [
    "PRECISIONS",
    "Epoch",
    "Evaluation",
    "History",
    "MovingAverage",
    "Processes",
    "connect",
    "disconnect",
    "estimate",
    "evaluate",
    "evaluate_together",
    "fit",
    "in_turn",
    "pick_device",
    "update_average",
    "warmup_cosine",
]
