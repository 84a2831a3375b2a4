"""The training loop of every lesson.

`fit` runs in one process or, started by `torchrun` or `accelerate launch`, in several that share
each batch.
"""

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course.training.averages import MovingAverage
from course.training.batch_norm import learned_statistics
from course.training.budget import Budget
from course.training.evaluation import evaluate_together
from course.training.history import History, Sums
from course.training.interrupts import StopSignals
from course.training.keeper import Keeper
from course.training.learner import Learner
from course.training.processes import connect
from course.training.reports import Reports


def fit(
    model: nn.Module,
    train: Any,
    held_out: Any = None,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    steps_per_epoch: int | None = None,
    batch_size: int = 32,
    lr: float = 3e-4,
    optimizer: torch.optim.Optimizer | None = None,
    schedule: Callable[[float], float] | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    label_smoothing: float = 0.0,
    precision: str = "fp32",
    average: MovingAverage | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    best: str | Path | None = None,
    log: Callable[[dict], Any] | None = None,
    quiet: bool = False,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> History:
    """Trains `model` on cross-entropy and returns the `History`.

    The run lasts `epochs`, or `steps` batches, or `seconds` of training. An epoch, a pass through
    `train` or `steps_per_epoch`, ends with a line of results, on `held_out` images too. The same
    `seed` gives the same run. Ctrl-C ends it early and keeps what has been learned.

    optimizer: in place of Adam, which has the learning rate `lr`. schedule: the factor on that rate
        from the share of the run that is over, 0 to 1, such as `warmup_cosine`.
    augment, mix: change each batch, as `ImageData.batches` says. label_smoothing: share of targets.
    precision: "bf16" and "fp16" are for a forward pass under autocast; all else stays in float32.
    average: a `MovingAverage` of the model, which takes the held-out trials.
    checkpoint, checkpoint_every, resume, best: files to go on from; see `Keeper`.
    log: gets a dict for each step, some steps late on GPUs, and for each epoch. quiet: no output,
        and Ctrl-C goes on to the caller, who may have more runs to stop.

    Raises ValueError for what does not fit, FloatingPointError when the loss is no number any more.
    """
    budget = Budget(len(train), batch_size, epochs, steps, seconds, steps_per_epoch)
    together = connect(device)
    torch.manual_seed((seed + together.rank) % 2**64)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr)
    learner = Learner(model, together, optimizer, schedule, average, precision, label_smoothing)
    keeper = Keeper(checkpoint, checkpoint_every, resume, best)
    reports = Reports(log, quiet, together.rank)
    run = Run(budget, learner, keeper, reports, train, held_out)
    return run.go(seed, augment=augment, mix=mix)


class Run:
    """One call of `fit`: batches go to the learner, and what it tells to history and reports."""

    def __init__(
        self,
        budget: Budget,
        learner: Learner,
        keeper: Keeper,
        reports: Reports,
        train: Any,
        held_out: Any,
    ) -> None:
        self.budget, self.learner, self.keeper, self.reports = budget, learner, keeper, reports
        self.train, self.held_out = train, held_out
        self.together = learner.together
        self.history = History()
        self.unread: list[tuple[Tensor, int, float]] = []  # each step's results, images, rate
        self.stop = StopSignals(keeper.checkpoint is not None or self.together.count > 1)

    @property
    def steps(self) -> int:
        """How many have been taken."""
        return len(self.history.losses) + len(self.unread)

    def go(self, seed: int, **changes: Any) -> History:
        """From the beginning, or from the checkpoint, to the end, or to Ctrl-C.

        seed, changes: for the batches; epoch number e draws from seed + e.
        """
        self.begin()
        batches = partial(
            self.train.batches,
            self.budget.batch_size,
            shuffle=True,
            device=self.together.device,
            rank=self.together.rank,
            processes=self.together.count,
            **changes,
        )
        if self.over() >= 1:
            self.reports.line("It is over already; a larger number of steps or epochs goes on")
        with self.stop, self.learner:
            try:
                while self.over() < 1:
                    epoch, place = len(self.history.epochs) + 1, self.history.current.steps
                    if not self.learn_epoch(epoch, batches(seed=seed + epoch, start=place)):
                        self.save()
                        raise KeyboardInterrupt
                    self.close_epoch()
                self.history.finished = True
            except KeyboardInterrupt:
                self.say_stopped()
                if self.reports.quiet:
                    raise
        return self.history

    def begin(self) -> None:
        """Says what is about to be done, and where the run stands if it had begun before."""
        if self.together.count > 1 and self.budget.steps is None:
            raise ValueError(
                f"{self.together.count} processes have as many clocks: take steps=... or epochs=..."
            )
        self.reports.line(f"Training on {self.together}: {self.budget}")
        if self.keeper.resume:
            self.history = self.keeper.restore(self.learner)
            self.reports.line(f"Resumed from {self.keeper.checkpoint} after {self.steps:,} steps")
            if self.history.processes != self.together.count:
                before = f"{self.history.processes} processes before"
                self.reports.line(
                    f"{before}: what is drawn at random in the model differs from now"
                )
        self.history.processes = self.together.count

    def over(self) -> float:
        """The share of the run that is over; sets the learning rate of what follows."""
        share = self.budget.share_over(self.steps, self.history.seconds)
        self.learner.set_rate(share)
        return share

    def learn_epoch(self, number: int, batches: Iterable[tuple[Tensor, Tensor]]) -> bool:
        """Learns until the epoch or the run is over, or somebody stops it: then returns False."""
        history, current = self.history, self.history.current
        count = self.budget.epoch_steps(self.steps - current.steps)
        read_every = reading_interval(self.together.device)
        before, started = history.seconds - current.seconds, time.perf_counter() - current.seconds
        self.learner.model.train()
        with self.reports.epoch(number, count, current.steps):
            for place, (images, targets) in enumerate(batches, current.steps):
                size = self.budget.batch(place)
                alone = size == 1 < self.budget.batch_size  # the images that were left
                with learned_statistics(self.learner.model, alone):
                    results = self.learner.gradients(images, targets, size, len(self.train.classes))
                self.unread.append((results, size, self.learner.rate))
                stopped = self.steps % read_every == 0 and self.read()
                self.learner.update()
                current.seconds = time.perf_counter() - started
                history.seconds = before + current.seconds
                if self.over() >= 1 or place + 1 == count:
                    break
                if stopped:
                    return False
                if self.keeper.due(self.steps):
                    self.save()
            self.read()
        return True

    def read(self) -> bool:
        """Takes what the last steps told from the device; returns whether anybody wants to stop."""
        if not self.unread:
            return False
        results, sizes, rates = zip(*self.unread, strict=True)
        stop = torch.full_like(results[0], self.stop.wanted)
        *table, (stopped, _) = self.together.total(torch.stack([*results, stop])).tolist()
        self.unread = []
        for (loss, correct), size, rate in zip(table, sizes, rates, strict=True):
            self.note(loss, correct, size, rate)
        return stopped > 0

    def note(self, loss: float, correct: float, images: int, rate: float) -> None:
        """One more step in history and reports. Raises FloatingPointError where it went wrong."""
        history, current = self.history, self.history.current
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {len(history.losses) + 1}: try a smaller learning "
                f"rate than {rate:g}, and check the images for values that are not finite"
            )
        history.losses.append(loss)
        current.add(images, loss, correct)
        share = self.budget.share_over(len(history.losses), history.seconds)
        left = history.seconds * (1 - min(share, 1)) / share if share else math.inf
        accuracy = current.correct / current.images
        self.reports.step(len(history.losses), loss, rate, accuracy, left)

    def close_epoch(self) -> None:
        """Tries the model on held-out images, says what came out, and keeps it."""
        history, tried = self.history, self.learner.tried
        result = history.current.means()
        if self.held_out is not None:
            result.held_out = evaluate_together(
                tried, self.held_out, self.together, quiet=self.reports.silent
            )
            if self.together.rank == 0:
                self.keeper.save_best(history, result.held_out, tried)
        history.epochs.append(result)
        history.current = Sums()
        self.reports.result(history)
        self.save()

    def save(self) -> None:
        """Keeps all that the rest of the run depends on; all processes must take part."""
        self.read()
        self.keeper.save(self.history, self.learner)

    def say_stopped(self) -> None:
        done = f"{self.steps:,}"
        if self.budget.steps is not None:
            done += f" of {self.budget.steps:,}"
        kept = "the model keeps what it learned so far"
        if self.keeper.checkpoint is not None:
            kept = f"{self.keeper.checkpoint} keeps the run, to be resumed"
        self.reports.line(f"Stopped after {done} steps; {kept}.")


def reading_interval(device: torch.device) -> int:
    """How often, in steps, to read losses: reading waits until a GPU has done all it was told."""
    return 1 if device.type == "cpu" else 20


def warmup_cosine(share: float, warmup: float = 0.1) -> float:
    """A schedule: the factor rises from 0 to 1 in the run's first tenth, then falls back to 0.

    The fall is half a cosine wave (Loshchilov and Hutter, arXiv 1608.03983, without restarts).
    """
    if share < warmup:
        return share / warmup
    return (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))) / 2
