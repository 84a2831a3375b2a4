"""The training loop of every lesson.

`fit` runs in one process or, started by `accelerate launch`, in several that share each batch.
"""

import itertools
import math
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather_object

from course.checkpoints import load_checkpoint, random_state, save_checkpoint, set_random_state
from course.training.batch_norm import separate_batch_norm, synchronise_batch_norm
from course.training.evaluation import (
    _evaluate_together,
    in_words,
    pick_device,
    progress,
    require_logits,
)
from course.training.history import Epoch, History, Sums

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


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
    mix=None,
    label_smoothing=0.0,
    precision="fp32",
    average=None,
    checkpoint=None,
    checkpoint_every=None,
    resume=False,
    log=None,
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
    augment, mix: change each batch, as `ImageData.batches` says, such as `flip_and_crop` and
        `mixup` from `course.augmentation`.
    label_smoothing: the share of each target that is spread over all classes.
    precision: "fp32", or "bf16" for a forward pass in bfloat16 where that is safe (autocast);
        weights, gradients and held-out trials stay in float32.
    average: a `MovingAverage` of the model, updated after each step; it takes the held-out trials.
    checkpoint: a file to keep the whole state of the run in. It is written after each epoch, every
        `checkpoint_every` steps, and on Ctrl-C. With `resume` and the same arguments the run goes
        on from there as if it had never stopped; without that file it starts at the beginning.
    log: called with a dict after each step and after each epoch.

    In several processes each learns from its share of every batch; `batch_size` is that of all
    together. The batches are those of one process, and `BatchNorm2d` sees whole batches too.

    Raises ValueError for arguments and logits that do not fit, and FloatingPointError when the loss
    stops being a number.
    """
    if [epochs, steps, seconds].count(None) != 2:
        raise ValueError("say how long to train: one of epochs=..., steps=... or seconds=...")
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: take one of {', '.join(PRECISIONS)}")
    accelerator = Accelerator(device_placement=False)
    processes, rank = accelerator.num_processes, accelerator.process_index
    fewest = min(batch_size, len(train), len(train if held_out is None else held_out))
    if processes > 1 and (seconds is not None or fewest < processes):
        raise ValueError(
            f"{processes} processes need an image each in every batch and in held-out data, and a "
            "budget in steps or epochs, because each has a clock of its own"
        )
    full_pass = math.ceil(len(train) / batch_size)
    if 0 < len(train) % batch_size < processes:
        full_pass -= 1  # the last batch is too small to share
    steps_per_epoch = min(steps_per_epoch or full_pass, full_pass)
    if epochs is not None:
        steps = epochs * steps_per_epoch
    device = torch.device(device or (accelerator.device if processes > 1 else pick_device()))
    show = print if rank == 0 else lambda line: None
    budget = f"{steps:,} steps" if seconds is None else f"{in_words(seconds)} in steps"
    where = f"{device.type} in {processes} processes" if processes > 1 else device.type
    show(f"Training on {where}: {budget} of {batch_size} images")

    torch.manual_seed(seed + rank)
    model.to(device)
    if average is not None:
        average.model.to(device)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=lr)
    rates = [group["lr"] for group in optimizer.param_groups]
    history = History()
    if resume and Path(checkpoint).exists():
        history = _restore(checkpoint, model, optimizer, average, device, processes, rank)
        show(f"Resumed from {checkpoint} after {len(history.losses):,} steps")
    shared = model
    if processes > 1:
        synchronise_batch_norm(model)
        shared = accelerator.prepare_model(model)

    def share_over():
        return len(history.losses) / steps if seconds is None else history.seconds / seconds

    def over():
        """The share of the run that is over, 0 to 1; sets the learning rate for what follows."""
        share = share_over()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (schedule(min(share, 1)) if schedule else 1)
        return share

    def save():
        if checkpoint is None:
            return
        random_states = gather_object([random_state(device)])  # from all, so that all must call
        if rank == 0:
            save_checkpoint(checkpoint, _state(history, model, optimizer, average, random_states))

    def report(**record):
        if log is not None and rank == 0:
            log(record)

    def time_left():
        share = share_over()
        return in_words(history.seconds * (1 - min(share, 1)) / share)

    def learn(images, targets):
        """One step; returns the batch's mean loss, its right answers, and whether to stop."""
        share = [part.tensor_split(processes)[rank] for part in (images, targets)]
        loss, correct = _forward(shared, *share, len(train.classes), precision, label_smoothing)
        loss = loss * (len(share[1]) * processes / len(targets))  # gradients will be averaged
        optimizer.zero_grad()
        loss.backward()
        sums = torch.stack([loss.detach() / processes, correct, correct.new_tensor(stop.is_set())])
        if processes > 1:
            sums = accelerator.reduce(sums, "sum")
        loss, correct, stopped = sums.tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {len(history.losses) + 1}: "
                f"try a smaller learning rate than {optimizer.param_groups[0]['lr']:g}, "
                "and check the images for values that are not finite"
            )
        optimizer.step()
        if average is not None:
            average.update(model)
        return loss, correct, stopped > 0

    def learn_epoch():
        """Learns until the epoch or the run is over, or somebody stops it: then returns False."""
        model.train()
        current, epoch = history.current, len(history.epochs) + 1
        batches = train.batches(
            batch_size, True, seed + epoch, device, augment, mix, start=current.steps
        )
        count = min(steps_per_epoch, (steps or math.inf) - len(history.losses) + current.steps)
        before, started = history.seconds - current.seconds, time.perf_counter() - current.seconds
        with progress(count, f"Epoch {epoch}", current.steps, hidden=rank > 0) as bar:
            for images, targets in itertools.islice(batches, count - current.steps):
                loss, correct, stopped = learn(images, targets)
                current.steps += 1
                current.images += len(targets)
                current.loss += loss * len(targets)
                current.correct += correct
                current.seconds = time.perf_counter() - started
                history.seconds = before + current.seconds
                history.losses.append(loss)
                report(step=len(history.losses), loss=loss, lr=optimizer.param_groups[0]["lr"])
                accuracy = current.correct / current.images
                bar.set_postfix_str(
                    f"loss {loss:.3f}, acc {accuracy:.3f}, {time_left()} left", refresh=False
                )
                bar.update()
                if over() >= 1 or current.steps == count:
                    break
                if stopped:
                    return False
                if checkpoint_every and len(history.losses) % checkpoint_every == 0:
                    save()
        return True

    def close_epoch():
        current = history.current
        result = Epoch(
            current.loss / current.images, current.correct / current.images, current.seconds
        )
        if held_out is not None:
            tried = model if average is None else average.model
            result.held_out = _evaluate_together(tried, held_out, device, processes, rank)
        history.epochs.append(result)
        history.current = Sums()
        show(f"Epoch {len(history.epochs)} | {result}")
        record = {"epoch": len(history.epochs), "step": len(history.losses), "loss": result.loss}
        record |= {"accuracy": result.accuracy, "seconds": history.seconds}
        if held_out is not None:
            record["held_out_loss"] = result.held_out.loss
            record["held_out_accuracy"] = result.held_out.accuracy
        report(**record)
        save()

    with _stop_signals(wanted=checkpoint is not None) as stop:
        try:
            while over() < 1:
                if not learn_epoch():
                    save()
                    raise KeyboardInterrupt
                close_epoch()
            history.finished = True
        except KeyboardInterrupt:
            done = len(history.losses)
            done = f"{done:,} steps" if steps is None else f"{done:,} of {steps:,} steps"
            kept = "the model keeps what it learned so far."
            if checkpoint is not None:
                kept = f"{checkpoint} keeps the run, and resume=True goes on with it."
            show(f"Stopped after {done}; {kept}")
        finally:
            separate_batch_norm(model)
    return history


def _forward(model, images, targets, num_classes, precision, label_smoothing):
    """The mean loss, with gradients, and the number of right answers, of a process's share."""
    with torch.autocast(images.device.type, PRECISIONS[precision], precision != "fp32"):
        logits = model(images)
    require_logits(logits, num_classes)
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    if targets.ndim == 2:  # probabilities, of which mixing leaves the largest at the main image
        targets = targets.argmax(dim=1)
    return loss, (logits.argmax(dim=1) == targets).sum().float()


def _state(history, model, optimizer, average, random_states):
    """All that the rest of a run depends on, apart from the arguments of `fit`.

    The schedule follows from the number of steps, and the batches from the seed and their place.
    random_states: of each process, which differ, because dropout must.
    """
    record = asdict(history)
    for epoch in record["epochs"]:
        epoch["held_out"] = epoch["held_out"] and tuple(epoch["held_out"])
    return {
        "history": record,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "random": random_states,
    }


def _restore(checkpoint, model, optimizer, average, device, processes, rank):
    """Puts a checkpoint's state back and returns its `History`. Raises ValueError if it can't.

    With another number of processes than before the random states do not fit, and stay as they are.
    """
    state = load_checkpoint(checkpoint, device)
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        if len(state["random"]) == processes:
            set_random_state(state["random"][rank], device)
        return History.from_dict(state["history"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f"{checkpoint} is not from this run: its model, optimiser or average differ"
        ) from None


@contextmanager
def _stop_signals(wanted):
    """While it lasts, Ctrl-C and SIGTERM set the `threading.Event` that this yields.

    So a step is finished before the run ends, and a checkpoint never holds half of one. A second
    Ctrl-C interrupts as usual. Without `wanted`, or outside the main thread, which alone may handle
    signals, nothing changes.
    """
    stop = threading.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.getsignal(number) for number in numbers]

    def restore():
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    def handle(number, frame):
        stop.set()
        restore()

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()


def warmup_cosine(share, warmup=0.1):
    """A schedule: the factor rises from 0 to 1 in the run's first tenth, then falls back to 0.

    The fall is half a cosine wave (Loshchilov and Hutter, arXiv 1608.03983, without restarts).
    """
    if share < warmup:
        return share / warmup
    return (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))) / 2
