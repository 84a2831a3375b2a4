"""One step of a run: what learning from a batch changes."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from course.checkpoints import random_state, set_random_state
from course.training.averages import MovingAverage
from course.training.batch_norm import (
    pause_synchronisation,
    separate_batch_norm,
    synchronise_batch_norm,
)
from course.training.evaluation import require_logits
from course.training.processes import Processes

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """A model, and what changes with it: optimiser, learning rate, average, scaler.

    As a context it joins the processes: their gradients are averaged, and norms see all images.

    schedule, average, precision, label_smoothing: as `fit` says.
    """

    def __init__(
        self,
        model: nn.Module,
        together: Processes,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[float], float] | None,
        average: MovingAverage | None,
        precision: str,
        label_smoothing: float,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r}: take one of {', '.join(PRECISIONS)}")
        self.model, self.together, self.average = model.to(together.device), together, average
        if average is not None:
            average.model.to(together.device)
        self.optimizer, self.schedule = optimizer, schedule
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.precision, self.label_smoothing = precision, label_smoothing
        # float16 has no numbers for small gradients: the loss is scaled up, they are scaled down
        self.scaler = torch.amp.GradScaler(together.device.type, enabled=precision == "fp16")

    def __enter__(self) -> "Learner":
        self.shared = self.model
        if self.together.count > 1:
            synchronise_batch_norm(self.model)
            # Averages gradients. The norms' statistics are equal already: no need to send them
            self.shared = DistributedDataParallel(self.model, forward_sync_buffers=False)
        return self

    def __exit__(self, *raised: object) -> None:
        del self.shared
        separate_batch_norm(self.model)

    @property
    def tried(self) -> nn.Module:
        """The model that takes the held-out trials."""
        return self.model if self.average is None else self.average.model

    @property
    def rate(self) -> float:
        """The first group's learning rate."""
        return self.optimizer.param_groups[0]["lr"]

    def set_rate(self, share_over: float) -> None:
        """The learning rates for what follows when that share of the run is over."""
        factor = self.schedule(min(share_over, 1)) if self.schedule else 1
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def gradients(self, images: Tensor, targets: Tensor, whole: int, num_classes: int) -> Tensor:
        """What `update` needs, from this process's share of a batch of `whole` images.

        Returns the share's part in the batch's mean loss and right answers, [2]: the sum over all
        processes is the batch's. Nothing here waits for the device.
        """
        count = self.together.count
        everybodys = whole < count  # each has all of the images, so that nobody has none
        if count > 1:
            pause_synchronisation(self.model, everybodys)
        part = 1 / count if everybodys else len(targets) / whole
        kind = PRECISIONS[self.precision]
        with torch.autocast(images.device.type, kind, enabled=kind != torch.float32):
            logits = self.shared(images)
        require_logits(logits, num_classes)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)
        if targets.ndim == 2:  # probabilities, of which mixing leaves the largest at the main image
            targets = targets.argmax(dim=1)
        correct = (logits.argmax(dim=1) == targets).sum()
        self.optimizer.zero_grad()
        self.scaler.scale(loss * (part * count)).backward()  # all processes' are averaged
        return torch.stack(
            [loss.detach() * part, correct / count if everybodys else correct.float()]
        )

    def update(self) -> None:
        """Moves the weights along their gradients. In fp16, GradScaler waits for the device."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, but for the batch and the share of the run.

        All processes must ask for it: their random states differ, because dropout must.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "scaler": self.scaler.state_dict(),
            "random": self.together.gather(random_state(self.together.device)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave.

        With another number of processes than before the random states do not fit, and stay as they
        are.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        if len(state["random"]) == self.together.count:
            set_random_state(state["random"][self.together.rank], self.together.device)
