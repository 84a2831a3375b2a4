"""How good a model is, and what its run will cost."""

import copy
import itertools
import math
import sys
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from tqdm import tqdm

from course.training.history import Evaluation


def pick_device():
    """The best device at hand: "cuda", then "mps", then "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@torch.no_grad()
def evaluate(model, data, *, batch_size=256, device=None, hidden=False):
    """The `Evaluation` of `model` on all of `data`, in eval mode; the model's mode stays as it was.

    `device` is by default the one that the model is on. `hidden` leaves the progress bar away.
    """
    device = device or next(model.parameters()).device
    was_training = model.training
    model.to(device).eval()
    loss_sum, predictions = 0.0, []
    with progress(math.ceil(len(data) / batch_size), "Evaluating", hidden=hidden) as bar:
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


def _evaluate_together(model, data, device, processes, rank):
    """`evaluate`, of which each process does its share."""
    share = slice(rank, None, processes)
    part = replace(data, images=data.images[share], targets=data.targets[share])
    results = gather_object([evaluate(model, part, device=device, hidden=rank > 0)])
    predictions = torch.empty(len(data), dtype=torch.int64)
    for place, result in enumerate(results):
        predictions[place::processes] = result.predictions
    loss = sum(result.loss * len(result.predictions) for result in results) / len(data)
    accuracy = (predictions == data.targets.cpu()).float().mean().item()
    return Evaluation(loss, accuracy, predictions)


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


def progress(total, description, done=0, hidden=False):
    """A progress bar that vanishes when it is done; `done` of `total` are so already."""
    return tqdm(
        total=total,
        desc=description,
        initial=done,
        disable=hidden,
        leave=False,
        mininterval=0.5,
        file=sys.stdout,
    )


def require_logits(logits, num_classes):
    """Raises ValueError unless `logits` is [B, num_classes]."""
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise ValueError(
            f"the model gives {list(logits.shape)}, but the data has {num_classes} classes: "
            f"build it with num_classes={num_classes}"
        )
