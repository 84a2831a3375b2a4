"""The training loop of every lesson: `fit`, `evaluate`, and what a run will cost, `estimate`."""

import copy
import itertools
import math
import sys
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm


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
class History:
    """What a run was like: the loss of every step, every epoch, and the seconds of training."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)


def pick_device():
    """The best device at hand: "cuda", then "mps", then "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def fit(
    model,
    train,
    held_out=None,
    *,
    epochs=None,
    steps=None,
    seconds=None,
    steps_per_epoch=None,
    batch_size=32,
    lr=3e-4,
    optimizer=None,
    schedule=None,
    augment=None,
    seed=0,
    device=None,
):
    """Trains `model` on cross-entropy and returns the `History`.

    train, held_out: `course.data.ImageData`. The run lasts `epochs` or, where that is given
    instead, `steps` batches or `seconds` of training, held-out trials not counted. An epoch is one
    pass through the training data, or `steps_per_epoch` batches for a closer look; it ends with a
    line of results. The same `seed` gives the same run. Ctrl-C ends it early and keeps what has
    been learned.

    optimizer: one with the model's parameters in place of Adam, which has the learning rate `lr`.
    schedule: factor on the learning rate from the share of the run that is over, 0 to 1, such as
        `warmup_cosine`; by default the rate stays.
    augment: changes each batch of images, as `ImageData.batches` says, such as `flip_and_crop`.

    Raises ValueError for a model whose logits do not fit the classes, and FloatingPointError when
    the loss stops being a number.
    """
    if [epochs, steps, seconds].count(None) != 2:
        raise ValueError("say how long to train: one of epochs=..., steps=... or seconds=...")
    full_pass = math.ceil(len(train) / batch_size)
    steps_per_epoch = min(steps_per_epoch or full_pass, full_pass)
    if epochs is not None:
        steps = epochs * steps_per_epoch
    budget = f"{steps:,} steps" if seconds is None else f"{in_words(seconds)} in steps"
    device = device or pick_device()
    print(f"Training on {device}: {budget} of {batch_size} images")
    torch.manual_seed(seed)
    model.to(device)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=lr)
    rates = [group["lr"] for group in optimizer.param_groups]
    history = History()

    def over():
        """The share of the run that is over, 0 to 1; sets the learning rate for what follows."""
        share = len(history.losses) / steps if seconds is None else history.seconds / seconds
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (schedule(min(share, 1)) if schedule else 1)
        return share

    try:
        while over() < 1:
            epoch = len(history.epochs) + 1
            batches = train.batches(batch_size, True, seed + epoch, device, augment)
            count = min(steps_per_epoch, (steps or math.inf) - len(history.losses))
            batches = itertools.islice(batches, count)
            result = _one_epoch(model, batches, count, len(train.classes), optimizer, over, history)
            if held_out is not None:
                result.held_out = evaluate(model, held_out, device=device)
            print(f"Epoch {epoch} | {result}")
    except KeyboardInterrupt:
        done = len(history.losses)
        done = f"{done:,} steps" if steps is None else f"{done:,} of {steps:,} steps"
        print(f"Stopped after {done}; the model keeps what it learned so far.")
    return history


def _one_epoch(model, batches, count, num_classes, optimizer, over, history):
    """Learns from `count` batches or until the run is over, and adds the `Epoch` to `history`."""
    model.train()
    loss_sum = correct = seen = 0
    before, started = history.seconds, time.perf_counter()
    with progress(count, f"Epoch {len(history.epochs) + 1}") as bar:
        for images, targets in batches:
            logits = model(images)
            require_logits(logits, num_classes)
            loss = F.cross_entropy(logits, targets)
            if not math.isfinite(loss.item()):
                raise FloatingPointError(
                    f"the loss is {loss.item()} at step {len(history.losses) + 1}: "
                    f"try a smaller learning rate than {optimizer.param_groups[0]['lr']:g}, "
                    "and check the images for values that are not finite"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.losses.append(loss.item())
            loss_sum += loss.item() * len(targets)
            correct += (logits.argmax(dim=1) == targets).sum().item()
            seen += len(targets)
            bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
            bar.update()
            history.seconds = before + time.perf_counter() - started
            if over() >= 1:
                break
    history.epochs.append(Epoch(loss_sum / seen, correct / seen, history.seconds - before))
    return history.epochs[-1]


def warmup_cosine(share, warmup=0.1):
    """A schedule: the factor rises from 0 to 1 in the run's first tenth, then falls back to 0.

    The fall is half a cosine wave (Loshchilov and Hutter, arXiv 1608.03983, without restarts).
    """
    if share < warmup:
        return share / warmup
    return (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))) / 2


@torch.no_grad()
def evaluate(model, data, *, batch_size=256, device=None):
    """The `Evaluation` of `model` on all of `data`, in eval mode; the model's mode stays as it was.

    `device` is by default the one that the model is on.
    """
    device = device or next(model.parameters()).device
    was_training = model.training
    model.to(device).eval()
    loss_sum, predictions = 0.0, []
    with progress(math.ceil(len(data) / batch_size), "Evaluating") as bar:
        for images, targets in data.batches(batch_size, device=device):
            logits = model(images)
            require_logits(logits, len(data.classes))
            loss_sum += F.cross_entropy(logits, targets, reduction="sum").item()
            predictions.append(logits.argmax(dim=1).cpu())
            bar.update()
    model.train(was_training)
    predictions = torch.cat(predictions)
    accuracy = (predictions == data.targets.cpu()).float().mean().item()
    return Evaluation(loss_sum / len(data), accuracy, predictions)


def estimate(model, train, *, epochs, batch_size=32, device=None):
    """Seconds that `fit` would take, from two steps of a copy of the model; also printed."""
    device = device or pick_device()
    steps = math.ceil(len(train) / batch_size)
    model = copy.deepcopy(model).to(device).train()
    for images, targets in itertools.islice(train.batches(batch_size, device=device), 2):
        started = time.perf_counter()  # the first step warms up, the second one counts
        F.cross_entropy(model(images), targets).backward()
        next(model.parameters()).grad.sum().item()  # waits for the device
    seconds = (time.perf_counter() - started) * steps * epochs
    print(
        f"{epochs} epochs of {steps:,} steps on {device}: about {in_words(seconds)}. "
        "Interrupt the kernel to stop early; the model keeps what it has learned."
    )
    return seconds


def in_words(seconds):
    """A duration as one reads it: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def progress(total, description):
    """A progress bar that vanishes when it is done."""
    return tqdm(total=total, desc=description, leave=False, mininterval=0.5, file=sys.stdout)


def require_logits(logits, num_classes):
    """Raises ValueError unless `logits` is [B, num_classes]."""
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise ValueError(
            f"the model gives {list(logits.shape)}, but the data has {num_classes} classes: "
            f"build it with num_classes={num_classes}"
        )
