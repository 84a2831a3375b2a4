"""The files of a run."""

from pathlib import Path

from torch import nn

from course.checkpoints import load_checkpoint, save_checkpoint
from course.training.history import Evaluation, History
from course.training.learner import Learner


class Keeper:
    """Keeps a run's whole state in `checkpoint`, and the weights of its best epoch in `best`.

    `checkpoint` is written after each epoch, every `every` steps, and on Ctrl-C. With `resume` and
    the same arguments the run goes on from it as if it had never stopped; where it is not there
    yet, the run starts at the beginning. `best` has the weights, the average's if there is one,
    with the highest held-out accuracy so far.
    """

    def __init__(
        self,
        checkpoint: str | Path | None,
        every: int | None,
        resume: bool,
        best: str | Path | None,
    ) -> None:
        if checkpoint is None and (resume or every):
            raise ValueError("say where the run is kept: checkpoint=...")
        self.checkpoint, self.every, self.best = checkpoint, every, best
        self.resume = resume and checkpoint is not None and Path(checkpoint).exists()

    def due(self, step: int) -> bool:
        return bool(self.every and step % self.every == 0)

    def save(self, history: History, learner: Learner) -> None:
        """All processes must call it, and the first one writes."""
        if self.checkpoint is None:
            return
        state = learner.state_dict() | {"history": history.to_dict()}
        if learner.together.rank == 0:
            save_checkpoint(self.checkpoint, state)

    def save_best(self, history: History, result: Evaluation, tried: nn.Module) -> None:
        """Keeps the weights that were `tried` with this result, if no epoch before did as well."""
        if self.best is not None and result.accuracy > history.best_accuracy:
            state = {"model": tried.state_dict(), "step": len(history.losses)}
            save_checkpoint(self.best, state | {"loss": result.loss, "accuracy": result.accuracy})

    def restore(self, learner: Learner) -> History:
        """Puts the checkpoint's state back. Raises ValueError if it is of another run."""
        assert self.checkpoint is not None
        state = load_checkpoint(self.checkpoint)
        try:
            learner.load_state_dict(state)
            return History.from_dict(state["history"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(
                f"{self.checkpoint} is not from this run: its model, optimiser or average differ"
            ) from None
