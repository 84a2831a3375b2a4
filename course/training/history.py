"""What a run was like."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


class Evaluation(NamedTuple):
    """Mean cross-entropy, share of right answers in [0, 1], and the predicted classes [N]."""

    loss: float
    accuracy: float
    predictions: Tensor


@dataclass
class Epoch:
    """Means over one pass through the training data; accuracies in [0, 1]."""

    loss: float
    accuracy: float
    seconds: float
    held_out: Evaluation | None = None

    def __str__(self):
        line = f"Loss: {self.loss:.4f} | Acc: {self.accuracy:.4f} | Time: {self.seconds:.1f}s"
        if self.held_out is not None:
            line += f" | Held-out acc: {self.held_out.accuracy:.4f}"
        return line


@dataclass
class Sums:
    """What has been added up since the epoch began."""

    steps: int = 0
    images: int = 0
    loss: float = 0.0
    correct: float = 0.0
    seconds: float = 0.0


@dataclass
class History:
    """What a run was like: the loss of every step, every epoch, and the seconds of training."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)
    current: Sums = field(default_factory=Sums)  # of the epoch that is under way
    finished: bool = False  # whether the run reached its end

    @classmethod
    def from_dict(cls, state):
        """The inverse of `dataclasses.asdict`."""
        epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        for epoch in epochs:
            epoch.held_out = epoch.held_out and Evaluation(*epoch.held_out)
        return cls(state["losses"], state["seconds"], epochs, Sums(**state["current"]))
