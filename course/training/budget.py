"""How long a run lasts."""

import math

from course.training.evaluation import in_words


class Budget:
    """`steps` batches or, where that is None, `seconds` of training; and an epoch's steps.

    Raises ValueError unless one of epochs, steps and seconds is given, and all are above 0.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        epochs: int | None,
        steps: int | None,
        seconds: float | None,
        steps_per_epoch: int | None,
    ) -> None:
        if [epochs, steps, seconds].count(None) != 2:
            raise ValueError("say how long to train: one of epochs=..., steps=... or seconds=...")
        given = {"epochs": epochs, "steps": steps, "seconds": seconds, "batch_size": batch_size}
        for name, value in (given | {"steps_per_epoch": steps_per_epoch}).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: it must be above 0")
        if not images:
            raise ValueError("there are no images to train on")
        full_pass = math.ceil(images / batch_size)
        self.images, self.batch_size = images, batch_size
        self.steps_per_epoch = min(steps_per_epoch or full_pass, full_pass)
        self.steps = epochs * self.steps_per_epoch if epochs is not None else steps
        self.seconds = seconds or 0.0

    def share_over(self, steps: int, seconds: float) -> float:
        """The share of the run that is over after so many steps, or seconds: 1 at its end."""
        return seconds / self.seconds if self.steps is None else steps / self.steps

    def epoch_steps(self, begun: int) -> int:
        """The steps of an epoch that begins after `begun` steps of the run."""
        left = self.steps_per_epoch if self.steps is None else self.steps - begun
        return min(self.steps_per_epoch, left)

    def batch(self, place: int) -> int:
        """The images of an epoch's batch number `place`, from 0."""
        return min(self.batch_size, self.images - place * self.batch_size)

    def __str__(self) -> str:
        if self.steps is None:
            return f"{in_words(self.seconds)} in steps of {self.batch_size} images"
        return f"{self.steps:,} steps of {self.batch_size} images"
