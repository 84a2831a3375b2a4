"""Trains a model of the course from the shell, on one process or many.

    python -m course.train --model small --data shapetexture100 --epochs 5
    torchrun --nproc_per_node 8 -m course.train --model coatnet_0_224 --data DIR --epochs 90
    python -m course.train --eval-only --model coatnet_0_rw_224 --pretrained --data IMAGENET/val

A run lives in a folder, `--out`: settings.json, metrics.jsonl (a line for each step and epoch),
checkpoint.pt and best.pt (the weights of the best epoch). Ctrl-C ends it with a checkpoint;
`--resume --out FOLDER` goes on, with another --device, --data or number of processes if need be,
and for longer with larger --epochs. On GPUs `accelerate launch` starts processes as torchrun does.
Exit code: 0 done, 130 stopped by Ctrl-C, 2 for what cannot be run, with one line that says why.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

if __name__ == "__main__":  # what follows takes seconds, in which Ctrl-C should just end it
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch
from torch import nn

from course.augmentation import RandomResizedCrop, flip_and_crop, mixup, trivial_augment
from course.data import load_data, load_held_out, memory_budget
from course.data.layout import name_some
from course.models import (
    MODELS,
    build_model,
    check_model,
    make_optimizer,
    pretrained_model,
    published,
)
from course.runs import OPTIONS, WEIGHTS, Metrics, RunFolder, Settings, option_name, versions
from course.training import (
    History,
    MovingAverage,
    Processes,
    connect,
    disconnect,
    evaluate_together,
    fit,
    in_turn,
    warmup_cosine,
)

AUGMENTATIONS: dict[str | None, Callable | None] = {
    "none": None,
    "flip-and-crop": flip_and_crop,
    "trivial": trivial_augment,
    "random-resized-crop": RandomResizedCrop(),
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def make_parser() -> Parser:
    """Options that are not given are left out: those of a stored run take their place."""
    about, *rest = (__doc__ or "").split("\n\n")
    parser = Parser(
        prog="python -m course.train",
        description=about,
        epilog="\n\n".join(rest),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    for option in OPTIONS:
        details: dict[str, Any] = dict(option.metadata)
        if option.default is False:
            details["action"] = "store_true"
        else:
            details.setdefault("type", str if option.default is None else type(option.default))
            if option.default is not None:
                details["help"] += f" (default: {option.default})"
        parser.add_argument(option_name(option.name), **details)
    add = parser.add_argument
    add("--out", type=Path, help="the run's folder (default: runs/MODEL-DATA)")
    add("--resume", action="store_true", help="go on with the run in --out, with its settings")
    add("--eval-only", action="store_true", help="try the run in --out on held-out images")
    add("--weights", choices=WEIGHTS, help="to try with --eval-only (default: last)")
    return parser


class Task(NamedTuple):
    """What the command line asks for; `folder` is None where published weights are to be tried."""

    kind: str  # "train", "resume" or "evaluate"
    settings: Settings
    folder: RunFolder | None
    weights: str


def read_task(argv: list[str] | None) -> Task:
    """What is asked for; ValueError for what does not fit."""
    given = vars(make_parser().parse_args(argv))
    resume, eval_only = given.pop("resume", False), given.pop("eval_only", False)
    weights, out = given.pop("weights", "last"), given.pop("out", None)
    if resume and eval_only:
        raise ValueError("say one of --resume and --eval-only")
    if eval_only and out is None and given.get("pretrained"):
        return Task("evaluate", new_settings(given), None, weights)
    name = Path(given.get("data", Settings.data)).name
    folder = RunFolder(out or Path("runs") / f"{given.get('model', Settings.model)}-{name}")
    if not (resume or eval_only):
        folder.require_place()
        return Task("train", new_settings(given), folder, weights)
    kind = "resume" if resume else "evaluate"
    stored = folder.read()
    settings = changed_settings(stored, given, kind, folder)
    if resume and os.environ.get("RANK", "0") == "0":
        say_length(stored, settings)
    return Task(kind, settings, folder, weights)


def new_settings(given: dict[str, Any]) -> Settings:
    """Settings with defaults that depend on others; ValueError for what is out of range."""
    settings = Settings(**given)
    check_model(settings.model)
    own = settings.model in MODELS
    if settings.steps is not None and settings.epochs is not None:
        raise ValueError("say how long to train once: --epochs or --steps")
    if settings.weights_file and not settings.pretrained:
        raise ValueError("--weights-file is for --pretrained: add that")
    if settings.pretrained and own:
        raise ValueError(f"nobody published weights of {settings.model}: leave --pretrained out")
    if settings.steps is None and settings.epochs is None:
        settings.epochs = 5
    if settings.image_size is None and settings.pretrained:
        settings.image_size = published(settings.model).image_size
    settings.image_size = settings.image_size or (32 if own else 224)
    if settings.augment is None:
        settings.augment = "none" if settings.data.lower() == Settings.data else "flip-and-crop"
    settings.data = absolute(settings.data)
    if settings.weights_file:
        settings.weights_file = absolute(settings.weights_file)
    check_ranges(settings)
    return settings


def absolute(place: str) -> str:
    """A path that means the same from everywhere; what is no path stays."""
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else place


RANGES = {  # what each number must be: words, and whether it is
    "above 0": (
        ("image_size", "epochs", "steps", "batch_size", "checkpoint_every", "lr", "hold_out"),
        lambda value: 0 < value < float("inf"),
    ),
    "0 or more": (("mixup", "weight_decay"), lambda value: 0 <= value < float("inf")),
    "from 0 to below 1": (("label_smoothing", "average"), lambda value: 0 <= value < 1),
    "from 0 to below 2 ** 63": (("seed",), lambda value: 0 <= value < 2**63),
}


def check_ranges(settings: Settings) -> None:
    for words, (names, fits) in RANGES.items():
        for name in names:
            value = getattr(settings, name)
            if value is not None and not fits(value):
                raise ValueError(f"{option_name(name)} {value}: it must be {words}")


def changed_settings(
    stored: Settings, given: dict[str, Any], task: str, folder: RunFolder
) -> Settings:
    """A run's settings with what may be given anew: its place and device, and a greater length."""
    for name, value in given.items():
        old = getattr(stored, name)
        if name == "data":
            given[name] = absolute(value)
        elif value == old or name in {"device", "checkpoint_every", "memory", "workers"}:
            continue
        elif name in {"epochs", "steps"} and old is None:
            other = "epochs" if name == "steps" else "steps"
            length = f"{option_name(other)} {getattr(stored, other)}"
            raise ValueError(f"the run in {folder} has {length}, and not {option_name(name)}")
        elif name not in {"epochs", "steps"} or task != "resume":
            raise ValueError(f"the run in {folder} has {option_name(name)} {old}, not {value}")
        elif value < old:
            raise ValueError(f"{option_name(name)} can only grow: the run in {folder} has {old}")
    settings = replace(stored, **given)
    check_ranges(settings)
    return settings


def say_length(stored: Settings, settings: Settings) -> None:
    """What a longer run means for its schedule."""
    for name in ("epochs", "steps"):
        old, new = getattr(stored, name), getattr(settings, name)
        if old != new:
            rate = settings.lr * warmup_cosine(old / new)
            print(
                f"{new:,} {name} instead of {old:,}: the schedule is spread over all of them, so "
                f"that the learning rate is {rate:.2g} where it would have been 0"
            )


def learning_data(settings: Settings, memory: int) -> tuple[Any, Any]:
    """Training and held-out images as the run sees them; `settings` learn what they are like.

    Raises ValueError where they are not those that a resumed run began with.
    """
    seen = published(settings.model) if settings.pretrained else None
    if seen is not None and settings.mean is None:
        settings.mean, settings.std = seen.mean, seen.std
        settings.interpolation, settings.crop_share = seen.interpolation, seen.crop_share
    train, held_out = load_data(
        settings.data, settings.image_size or 0, **reading(settings, memory)
    )
    if settings.classes is None:
        settings.classes, settings.images = list(train.classes), len(train)
        settings.versions = versions()
    if settings.mean is None:
        settings.mean, settings.std = list(train.mean), list(train.std)
    if missing := [name for name in settings.classes if name not in train.classes]:
        raise ValueError(f"the run learned {name_some(missing)}, which {settings.data} has not")
    if settings.images not in {None, len(train)}:
        raise ValueError(
            f"{settings.data} has {len(train):,} training images, and the run began with "
            f"{settings.images:,}: put the same ones there, or start a new run"
        )
    return as_learned(train, settings), as_learned(held_out, settings)


def reading(settings: Settings, memory: int) -> dict[str, Any]:
    """How a folder is to be read: options of `course.data.load_folder`."""
    names = ("hold_out", "workers", "mean", "std", "interpolation", "crop_share", "seed")
    return {name: getattr(settings, name) for name in names} | {"memory": memory}


def agreed_memory(settings: Settings, together: Processes) -> int:
    """Bytes that images may take in each process, as the first one finds: all stream, or none."""
    return together.gather(memory_budget(settings.memory))[0]


def as_learned(data: Any, settings: Settings) -> Any:
    """`data` as a run's model wants it: its classes in its order, its mean, std, interpolation.

    ValueError names the classes that the model has not learned.
    """
    classes = settings.classes or list(data.classes)
    if unknown := [name for name in data.classes if name not in classes]:
        raise ValueError(f"{settings.data} has classes that were not learned: {name_some(unknown)}")
    places = torch.tensor([classes.index(name) for name in data.classes])
    changes = {"classes": classes, "targets": places[data.targets]}
    changes["interpolation"] = settings.interpolation
    if settings.mean is not None and settings.std is not None:  # which an older run did not keep
        changes |= {"mean": tuple(settings.mean), "std": tuple(settings.std)}
    return replace(data, **changes)


def learn(
    settings: Settings, folder: RunFolder, resume: bool, data: tuple[Any, Any], together: Processes
) -> History:
    """Runs `fit` as the settings say; the run's folder is made when all else stands."""
    size = len(settings.classes or []), settings.image_size or 0
    model = build_model(settings.model, *size, settings.seed)
    if settings.pretrained and not (resume and folder.checkpoint.exists()):
        load = partial(pretrained_model, settings.model, *size, settings.weights_file)
        model = in_turn(together, load)
    settings.processes = together.count
    if together.rank == 0:
        (folder.write if resume else folder.begin)(settings)
    budget = {name: getattr(settings, name) for name in ("epochs", "steps")}
    return fit(
        model,
        *data,
        **{name: value for name, value in budget.items() if value is not None},
        batch_size=settings.batch_size,
        optimizer=make_optimizer(model, settings.lr, settings.weight_decay),
        schedule=warmup_cosine,
        augment=AUGMENTATIONS[settings.augment],
        mix=partial(mixup, alpha=settings.mixup) if settings.mixup else None,
        label_smoothing=settings.label_smoothing,
        precision=settings.precision,
        average=MovingAverage(model, settings.average) if settings.average else None,
        checkpoint=folder.checkpoint,
        checkpoint_every=settings.checkpoint_every,
        best=folder.best,
        resume=resume,
        log=Metrics(folder.metrics),
        seed=settings.seed,
        device=settings.device,
    )


def try_out(task: Task, together: Processes) -> None:
    """Prints loss and accuracy of published weights, or of a run's last or best ones."""
    settings, folder, image_size = task.settings, task.folder, task.settings.image_size or 0
    if folder is None:
        seen = published(settings.model)
        settings.classes, settings.mean, settings.std = (
            seen.classes,
            list(seen.mean),
            list(seen.std),
        )
        settings.interpolation, settings.crop_share = seen.interpolation, seen.crop_share
        model: nn.Module
        size = len(seen.classes), image_size
        load = partial(pretrained_model, settings.model, *size, settings.weights_file)
        model, whose = in_turn(together, load), "Published weights"
    else:
        model, steps = folder.model(settings, task.weights)
        whose = f"After {steps:,} steps"
    memory = agreed_memory(settings, together)
    options = reading(settings, memory) | {"classes": settings.classes}
    data = in_turn(together, partial(load_held_out, settings.data, image_size, **options))
    result = evaluate_together(model, as_learned(data, settings), together)
    if together.rank == 0:
        print(f"{whose}, on {len(data):,} held-out images: ", end="")
        print(f"loss {result.loss:.4f}, accuracy {result.accuracy:.4f}")


def go_on(folder: RunFolder, together: Processes) -> str:
    """The command that resumes the run, with the launcher that it had."""
    programs = Path(sys.executable).parent
    here = programs.relative_to(Path.cwd()) if programs.is_relative_to(Path.cwd()) else Path()
    command = [str(here / "python")]
    if together.count > 1:
        local = os.environ.get("LOCAL_WORLD_SIZE", str(together.count))
        command = [str(here / "torchrun"), "--nproc_per_node", local]
        if together.count > int(local):
            command += ["--nnodes", str(together.count // int(local)), "..."]
    return shlex.join([*command, "-m", "course.train", "--resume", "--out", str(folder)])


def run(task: Task, together: Processes) -> int:
    """Does what is asked for; the exit code."""
    if task.kind == "evaluate":
        try_out(task, together)
        return 0
    assert task.folder is not None
    memory = agreed_memory(task.settings, together)
    data = in_turn(together, partial(learning_data, task.settings, memory))
    history = learn(task.settings, task.folder, task.kind == "resume", data, together)
    if not history.finished and together.rank == 0:
        print(f"To go on: {go_on(task.folder, together)}")
    return 0 if history.finished else 130


def main(argv: list[str] | None = None) -> int:
    is_main = os.environ.get("RANK", "0") == "0"
    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        task = read_task(argv)
        return run(task, connect(task.settings.device))
    except KeyboardInterrupt:
        print("course.train: stopped; what had not begun is not kept", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, torch.OutOfMemoryError) as error:
        if is_main:
            print(f"course.train: {in_a_line(error)}", file=sys.stderr)
        return 2
    finally:
        disconnect()


def in_a_line(error: Exception) -> str:
    """An error's message, with the file that it is about, and what to do where that is known."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the device is out of memory: try a smaller --batch-size"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
