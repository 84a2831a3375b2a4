"""What a run was like."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

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

    def __str__(self) -> str:
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

    def add(self, images: int, loss: float, correct: float) -> None:
        """One more step: its images, their mean loss, and the right answers among them."""
        self.steps += 1
        self.images += images
        self.loss += loss * images
        self.correct += correct

    def means(self) -> Epoch:
        return Epoch(self.loss / self.images, self.correct / self.images, self.seconds)


@dataclass
class History:
    """What a run was like: the loss of every step, every epoch, and the seconds of training."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)
    current: Sums = field(default_factory=Sums)  # of the epoch that is under way
    finished: bool = False  # whether the run reached its end
    processes: int = 1  # how many shared its last step

    @property
    def best_accuracy(self) -> float:
        """The highest held-out accuracy of an epoch, in [0, 1]; -1 without any."""
        return max((e.held_out.accuracy for e in self.epochs if e.held_out), default=-1.0)

    def to_dict(self) -> dict[str, Any]:
        """As a dict of lists, numbers, strings and tensors."""
        state = asdict(self)
        for epoch in state["epochs"]:
            epoch["held_out"] = epoch["held_out"] and tuple(epoch["held_out"])
        return state

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "History":
        """The inverse of `to_dict`."""
        epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        for epoch in epochs:
            epoch.held_out = epoch.held_out and Evaluation(*epoch.held_out)
        changed = {"epochs": epochs, "current": Sums(**state["current"]), "finished": False}
        return cls(**state | changed)
