"""What a run says while it lasts: lines, a progress bar, and records for `log`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from course.training.evaluation import in_words, progress
from course.training.history import History


class Reports:
    """Of several processes the first one speaks; a quiet run is silent, but calls `log`."""

    def __init__(self, log: Callable[[dict], Any] | None, quiet: bool, rank: int) -> None:
        self.log = log if rank == 0 else None
        self.quiet, self.silent = quiet, quiet or rank > 0

    def line(self, text: str) -> None:
        if not self.silent:
            print(text)

    def record(self, **values: Any) -> None:
        if self.log is not None:
            self.log(values)

    @contextmanager
    def epoch(self, number: int, steps: int, done: int) -> Iterator[None]:
        """A progress bar while it lasts; `done` of its steps are so already."""
        with progress(steps, f"Epoch {number}", done, quiet=self.silent) as self.bar:
            yield

    def step(self, number: int, loss: float, rate: float, accuracy: float, left: float) -> None:
        """One step of the epoch: its loss and learning rate, accuracy so far, and seconds left."""
        self.record(step=number, loss=loss, lr=rate)
        text = f"loss {loss:.3f}, acc {accuracy:.3f}, {in_words(left)} left"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()

    def result(self, history: History) -> None:
        """The line and the record of the epoch that is just over."""
        number, epoch = len(history.epochs), history.epochs[-1]
        self.line(f"Epoch {number} | {epoch}")
        record = {"epoch": number, "step": len(history.losses), "loss": epoch.loss}
        record |= {"accuracy": epoch.accuracy, "seconds": history.seconds}
        if epoch.held_out is not None:
            record["held_out_loss"] = epoch.held_out.loss
            record["held_out_accuracy"] = epoch.held_out.accuracy
        self.record(**record)
