"""Trains a model of the course from the shell, on one process or many.

    python -m course.train --model small --data shapetexture100 --epochs 5
    accelerate launch --num_processes 8 -m course.train --model coatnet_0_224 --data DIR --epochs 90

A run lives in a folder, `--out`: settings.json, metrics.jsonl (a line for each step and each epoch)
and checkpoint.pt. Ctrl-C ends it with a checkpoint; `--resume --out FOLDER` goes on.
Exit code: 0 done, 130 stopped by Ctrl-C, 2 for what cannot be run, with one line that says why.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

from coatnet import create_model, list_models
from course.augmentation import flip_and_crop, mixup, trivial_augment
from course.checkpoints import load_checkpoint
from course.data import load_data
from course.models import MODELS, build_model, make_optimizer
from course.training import (
    PRECISIONS,
    MovingAverage,
    connect,
    disconnect,
    evaluate,
    fit,
    warmup_cosine,
)

AUGMENTATIONS = {"none": None, "flip-and-crop": flip_and_crop, "trivial": trivial_augment}
DEFAULTS = {
    "model": "small",
    "data": "shapetexture100",
    "pretrained": False,
    "image_size": None,
    "epochs": None,
    "steps": None,
    "batch_size": 64,
    "lr": 2e-3,
    "weight_decay": 0.05,
    "augment": None,
    "mixup": 0.0,
    "label_smoothing": 0.0,
    "average": 0.0,
    "precision": "fp32",
    "checkpoint_every": 500,
    "seed": 0,
    "device": None,
}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(message)


def make_parser():
    # Options that are not given are left out, so that those of a stored run can take their place
    parser = Parser(
        prog="python -m course.train",
        description=__doc__.split("\n\n")[0],
        epilog="\n\n".join(__doc__.split("\n\n")[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--model", help=f"{', '.join(MODELS)} or a name of the family (default: small)")
    add("--pretrained", action="store_true", help="start from ImageNet weights, if published")
    add("--data", help="shapetexture100 (default), cifar100, cifar10, or a folder of images")
    add("--image-size", type=int, help="pixels (default: 224 for the family, 32 for the others)")
    add("--epochs", type=int, help="passes through the training data (default: 5)")
    add("--steps", type=int, help="batches, instead of --epochs")
    add("--batch-size", type=int, help="of all processes together (default: 64)")
    add("--lr", type=float, help="highest learning rate of AdamW (default: 2e-3)")
    add("--weight-decay", type=float, help="on all but norms and biases (default: 0.05)")
    add(
        "--augment",
        choices=AUGMENTATIONS,
        help="default: none for the embedded data, whose mirror"
        " images are other classes, and flip-and-crop for the rest",
    )
    add("--mixup", type=float, metavar="ALPHA", help="mix images in pairs (default: 0, off)")
    add("--label-smoothing", type=float, help="share of each target for all classes (default: 0)")
    add("--average", type=float, metavar="DECAY", help="moving average of weights (default: off)")
    add("--precision", choices=PRECISIONS, help="of the forward pass (default: fp32)")
    add("--checkpoint-every", type=int, metavar="STEPS", help="beside each epoch's (default: 500)")
    add("--seed", type=int, help="of weights, order and augmentation (default: 0)")
    add("--device", help="cuda, mps or cpu (default: the best there is)")
    add("--out", type=Path, help="the run's folder (default: runs/MODEL-DATA)")
    add("--resume", action="store_true", help="go on with the run in --out, with its settings")
    add("--eval-only", action="store_true", help="try the run in --out on held-out images")
    return parser


def read_settings(argv):
    """(settings, run folder, "train", "resume" or "evaluate"); ValueError for what does not fit."""
    given = vars(make_parser().parse_args(argv))
    resume, eval_only = given.pop("resume", False), given.pop("eval_only", False)
    out = given.pop("out", None)
    if out is None:
        name = Path(given.get("data", DEFAULTS["data"])).name
        out = Path("runs") / f"{given.get('model', DEFAULTS['model'])}-{name}"
    file = out / "settings.json"
    if not (resume or eval_only):
        if file.exists():
            raise ValueError(f"{out} holds a run: go on with --resume, or choose another --out")
        settings = DEFAULTS | given
        if settings["steps"] is None and settings["epochs"] is None:
            settings["epochs"] = 5
        return check_settings(settings), out, "train"
    if not file.exists():
        raise ValueError(f"{out} holds no run: start one without --resume and --eval-only")
    try:
        settings = DEFAULTS | json.loads(file.read_text())
    except json.JSONDecodeError:
        raise ValueError(f"{file} is damaged: it should hold the run's settings") from None
    for name, value in given.items():
        if value != settings[name] and not (eval_only and name in {"data", "device"}):
            option = "--" + name.replace("_", "-")
            raise ValueError(f"the run in {out} has {option} {settings[name]}, not {value}")
    settings |= given
    return settings, out, "evaluate" if eval_only else "resume"


def check_settings(settings):
    """The settings with defaults that depend on others; ValueError for numbers out of range."""
    settings = dict(settings)
    if settings["model"] not in MODELS and settings["model"] not in list_models():
        create_model(settings["model"])  # says which names are near
    if settings["steps"] is not None and settings["epochs"] is not None:
        raise ValueError("say how long to train once: --epochs or --steps")
    if settings["image_size"] is None:
        settings["image_size"] = 32 if settings["model"] in MODELS else 224
    if settings["augment"] is None:
        embedded = settings["data"].lower() == "shapetexture100"
        settings["augment"] = "none" if embedded else "flip-and-crop"
    for name in ("image_size", "epochs", "steps", "batch_size", "checkpoint_every", "lr"):
        if settings[name] is not None and not settings[name] > 0:
            raise ValueError(f"--{name.replace('_', '-')} {settings[name]}: it must be above 0")
    for name in ("mixup", "weight_decay"):
        if not settings[name] >= 0:
            raise ValueError(f"--{name.replace('_', '-')} {settings[name]}: it can't be negative")
    for name in ("label_smoothing", "average"):
        if not 0 <= settings[name] < 1:
            raise ValueError(f"--{name.replace('_', '-')} {settings[name]}: from 0 to below 1")
    if settings["pretrained"] and settings["model"] in MODELS:
        raise ValueError(f"nobody published weights of {settings['model']}: leave --pretrained out")
    return settings


def load(name, image_size):
    """`load_data`, with ValueError for a download that fails."""
    try:
        return load_data(name, image_size)
    except RuntimeError as error:
        raise ValueError(error) from None


class Metrics:
    """Appends records to a file of JSON lines.

    A resumed run repeats the steps since its checkpoint: their old lines go when the first new one
    comes, so that the file reads as if the run had never stopped.
    """

    def __init__(self, path):
        self.path = path
        self.began = False

    def __call__(self, record):
        if not self.began:
            self.drop_from(record["step"])
            self.began = True
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")

    def drop_from(self, step):
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:
                break  # half a line, from a run that was killed while it wrote
        beside = self.path.with_name(self.path.name + ".part")
        beside.write_text("".join(kept))
        os.replace(beside, self.path)


def train(settings, out, train_data, held_out, resume, together):
    """Runs `fit` as the settings say and returns its `History`."""
    model = build_model(settings, len(train_data.classes))
    if not resume and together.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        settings |= {"classes": train_data.classes, "processes": together.count}
        (out / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    budget = {name: settings[name] for name in ("epochs", "steps") if settings[name] is not None}
    return fit(
        model,
        train_data,
        held_out,
        **budget,
        batch_size=settings["batch_size"],
        optimizer=make_optimizer(model, settings["lr"], settings["weight_decay"]),
        schedule=warmup_cosine,
        augment=AUGMENTATIONS[settings["augment"]],
        mix=partial(mixup, alpha=settings["mixup"]) if settings["mixup"] else None,
        label_smoothing=settings["label_smoothing"],
        precision=settings["precision"],
        average=MovingAverage(model, settings["average"]) if settings["average"] else None,
        checkpoint=out / "checkpoint.pt",
        best=out / "best.pt",
        checkpoint_every=settings["checkpoint_every"],
        resume=resume,
        log=Metrics(out / "metrics.jsonl"),
        seed=settings["seed"],
        device=settings["device"],
    )


def try_out(settings, out, held_out):
    """Prints the loss and the accuracy of the run's model, or its moving average."""
    if settings.get("classes") != held_out.classes:
        raise ValueError(f"the run in {out} learned other classes than {settings['data']} has")
    file = out / "checkpoint.pt"
    state = load_checkpoint(file)
    model = build_model(settings | {"pretrained": False}, len(held_out.classes))
    try:
        model.load_state_dict(state["average"]["model"] if state["average"] else state["model"])
        steps = len(state["history"]["losses"])
    except (KeyError, TypeError, RuntimeError):
        raise ValueError(f"{file} does not hold a {settings['model']} of this run") from None
    result = evaluate(model, held_out, device=settings["device"])
    print(f"After {steps:,} steps, on {len(held_out):,} held-out images: ", end="")
    print(f"loss {result.loss:.4f}, accuracy {result.accuracy:.4f}")


def main(argv=None):
    is_main = os.environ.get("RANK", "0") == "0"
    try:
        settings, out, task = read_settings(argv)
        together = connect(settings["device"])
        if not is_main:
            together.gather(None)  # the first process downloads, if need be, for all
        datasets = load(settings["data"], settings["image_size"])
        if is_main:
            together.gather(None)
        if task == "evaluate":
            try_out(settings, out, datasets[1])
            return 0
        history = train(settings, out, *datasets, task == "resume", together)
        if history.finished:
            return 0
        if is_main:
            print(f"To go on: python -m course.train --resume --out {out}")
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if is_main:
            print(f"course.train: {error}", file=sys.stderr)
        return 2
    finally:
        disconnect()


if __name__ == "__main__":
    sys.exit(main())
