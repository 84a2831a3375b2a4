"""How good a model is, and what its run will cost."""

import copy
import itertools
import math
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from course.training.history import Evaluation
from course.training.processes import Processes, pick_device


def evaluate(
    model: nn.Module,
    data: Any,
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    quiet: bool = False,
) -> Evaluation:
    """The `Evaluation` of `model` on all of `data`, in eval mode; the model's mode stays as it was.

    `device` is by default the one that the model is on. `quiet` leaves the progress bar away.
    """
    device = torch.device(device or next(model.parameters()).device)
    return evaluate_together(model, data, Processes(device), batch_size, quiet)


@torch.no_grad()
def evaluate_together(
    model: nn.Module,
    data: Any,
    processes: Processes,
    batch_size: int = 256,
    quiet: bool = False,
) -> Evaluation:
    """`evaluate`, of which each process does its share of every batch; all get the result."""
    was_training = model.training
    model.to(processes.device).eval()
    sums, predictions = [], []  # of each batch: read at the end, because reading waits for the GPU
    batches = data.batches(
        batch_size, device=processes.device, rank=processes.rank, processes=processes.count
    )
    count = math.ceil(len(data) / batch_size)
    quiet = quiet or processes.rank > 0
    try:
        with progress(count, "Evaluating", quiet=quiet) as bar:
            for images, targets in batches:
                logits = model(images)
                require_logits(logits, len(data.classes))
                loss, predicted = (
                    F.cross_entropy(logits, targets, reduction="sum"),
                    logits.argmax(1),
                )
                sums.append(torch.stack([loss, (predicted == targets).sum().float()]))
                predictions.append(predicted)
                bar.update()
    finally:
        model.train(was_training)
    table = torch.stack(sums).double().cpu()  # [batches, 2]
    shares = processes.gather((table, [part.cpu() for part in predictions]))
    last = len(data) - (count - 1) * batch_size
    if last < processes.count:  # the whole of it is everybody's share
        for table, parts in shares[1:]:
            table[-1], parts[-1] = 0, parts[-1][:0]
    loss, right = (sum(table for table, _ in shares).sum(0) / len(data)).tolist()
    parts = [torch.cat(batch) for batch in zip(*(parts for _, parts in shares), strict=True)]
    return Evaluation(loss, right, torch.cat(parts))


def estimate(
    model: nn.Module,
    train: Any,
    *,
    epochs: int,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> float:
    """Seconds that `fit` would take, from two steps of a copy of the model; also printed."""
    device = device or pick_device()
    steps = math.ceil(len(train) / batch_size)
    model = copy.deepcopy(model).to(device).train()
    for images, targets in itertools.islice(train.batches(batch_size, device=device), 2):
        started = time.perf_counter()  # the first step warms up, the second one counts
        F.cross_entropy(model(images), targets).backward()
        torch.stack([p.sum() for p in model.parameters()]).tolist()  # waits for the device
    seconds = (time.perf_counter() - started) * steps * epochs
    print(
        f"{epochs} epochs of {steps:,} steps on {device}: about {in_words(seconds)}. "
        "Interrupt the kernel to stop early; the model keeps what it has learned."
    )
    return seconds


def in_words(seconds: float) -> str:
    """A duration as one reads it: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def progress(total: int, description: str, done: int = 0, quiet: bool = False) -> tqdm:
    """A progress bar that vanishes when it is done; `done` of `total` are so already."""
    return tqdm(
        total=total,
        desc=description,
        initial=done,
        disable=quiet,
        leave=False,
        mininterval=0.5,
        file=sys.stdout,
    )


def require_logits(logits: Tensor, num_classes: int) -> None:
    """Raises ValueError unless `logits` is [B, num_classes]."""
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise ValueError(
            f"the model gives {list(logits.shape)}, but the data has {num_classes} classes: "
            f"build it with num_classes={num_classes}"
        )
