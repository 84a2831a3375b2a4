"""What five models learn of real photographs in ten minutes: the course's recipe beside others.

python benchmarks/time_to_accuracy.py [FOLDER] [--seconds N] [--models ...] [--json F] [--png F]

FOLDER holds train/<class>/* and test/<class>/*. Without it, CIFAR-10 as JPEG files is used, which
the course's developers keep in ../shared/data.

(a) original: lesson 2's setting, the hybrid 512 wide and 6 deep, batches of 32, Adam at 3e-4, each
    image resized to 56 pixels by PIL in turn, no augmentation; for twice the time
(b) vit, (c) hybrid, (d) small, the course's staged model: `python -m course.train`'s models; small
    also in a run of a tenth of the time, with a schedule as short
(e) resnet18: timm's, with its first stride and pooling left out, as small images want

(b) to (e) share (d)'s recipe: AdamW with warm-up and cosine, flips and crops, bfloat16 where
autocast allows, a moving average of the weights. Seconds count training alone, from the batch to
the optimiser; five or more held-out trials, on all test images, come in between. The column "data"
is what it takes of a step to cut, flip and normalise a batch.
"""

import argparse
import itertools
import json
import platform
import sys
import time
from dataclasses import replace
from datetime import date

import timm
import torch
import torch.nn.functional as F
from photographs import ARCHIVE, load
from PIL import Image
from torchvision import transforms

from coatnet import CoAtNEt
from course.augmentation import flip_and_crop
from course.models import make_hybrid, make_optimizer, make_small, make_vit
from course.training import MovingAverage, evaluate, fit, warmup_cosine

IMAGE_SIZE, BATCH_SIZE, LR, WEIGHT_DECAY, DECAY = 32, 64, 2e-3, 0.05, 0.998
MARKS = 60, 120, 300, 600, 1200  # the table's columns, in seconds
TRIALS = 5  # on held-out images, in a run; and one after each pass through the data
ORIGINAL_TRIALS = 4


def make_resnet18(num_classes, image_size):
    model = timm.create_model("resnet18", num_classes=num_classes)
    model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    return model


# The function that makes each model, and its share of the time
RUNS = {
    "small": (make_small, 1),
    "small, in short": (make_small, 0.1),
    "resnet18": (make_resnet18, 1),
    "hybrid": (make_hybrid, 1),
    "vit": (make_vit, 1),
}


def recipe(model):
    """The options of `fit`."""
    return {
        "batch_size": BATCH_SIZE,
        "optimizer": make_optimizer(model, LR, WEIGHT_DECAY),
        "schedule": warmup_cosine,
        "augment": flip_and_crop,
        "average": MovingAverage(model, DECAY),
        "precision": "bf16",
    }


def run_recipe(make, train, test, seconds):
    """A model's curve, (seconds, accuracy) at each trial; its steps; the share of data; itself."""
    steps_a_second = measure_speed(make, train)
    torch.manual_seed(0)
    model = make(len(train.classes), IMAGE_SIZE)
    history = fit(
        model,
        train,
        test,
        seconds=seconds,
        steps_per_epoch=max(1, round(steps_a_second * seconds / TRIALS)),
        **recipe(model),
    )
    times = itertools.accumulate(epoch.seconds for epoch in history.epochs)
    curve = [(t, e.held_out.accuracy) for t, e in zip(times, history.epochs, strict=True)]
    steps = len(history.losses)
    return curve, steps, data_seconds(train) / (history.seconds / steps), model


def measure_speed(make, train):
    """Steps a second, after a warm-up."""
    model = make(len(train.classes), IMAGE_SIZE)
    fit(model, train, steps=4, **recipe(model))
    return 12 / fit(model, train, steps=12, **recipe(model)).seconds


def data_seconds(train):
    """What a batch of the recipe takes to be made: the mean of a hundred."""
    batches = train.batches(BATCH_SIZE, shuffle=True, augment=flip_and_crop)
    next(batches)
    started = time.perf_counter()
    count = sum(1 for _ in itertools.islice(batches, 100))
    return (time.perf_counter() - started) / count


def run_original(train, test, seconds):
    """The same of the original setting, in a loop of its own: its images come one by one."""
    torch.manual_seed(0)
    model = CoAtNEt(56, 7, 512, 8, num_classes=len(train.classes), depth=6)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    prepare = transforms.Compose(
        [
            transforms.Resize((56, 56)),
            transforms.ToTensor(),
            transforms.Normalize(train.mean, train.std),
        ]
    )
    pictures = [Image.fromarray(image) for image in train.images.permute(0, 2, 3, 1).numpy()]
    test = replace(test, image_size=56)
    curve, steps, spent, next_trial = [], 0, 0.0, seconds / ORIGINAL_TRIALS
    while spent < seconds:
        for indices in torch.randperm(len(train)).split(32):
            started = time.perf_counter()
            images = torch.stack([prepare(pictures[i]) for i in indices])
            loss = F.cross_entropy(model(images), train.targets[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            spent += time.perf_counter() - started
            if spent >= next_trial:
                curve.append((spent, evaluate(model, test).accuracy))
                print(f"{spent:5.0f} s: {curve[-1][1]:.1%}", flush=True)
                next_trial += seconds / ORIGINAL_TRIALS
            if spent >= seconds:
                break
    return curve, steps, model


def at(curve, seconds):
    """The accuracy at the last trial up to a time, with 5 % grace; "" before and after the run."""
    seen = [accuracy for t, accuracy in curve if t <= 1.05 * seconds]
    return f"{seen[-1]:.1%}" if seen and curve[-1][0] > 0.9 * seconds else ""


def draw(curves, file):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), label=name, marker=".")
    axes.set(xlabel="seconds of training, two CPU cores", ylabel="right on held-out photographs")
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks([15, 30, *MARKS], [15, 30, *MARKS])
    axes.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help=f"images (default: unpacks {ARCHIVE.name})")
    parser.add_argument("--seconds", type=float, default=600, help="for each run (default: 600)")
    names = [*RUNS, "original"]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--json", help="a file for the curves")
    parser.add_argument("--png", help="a file for the figure")
    options = parser.parse_args()
    train, test = load(options.folder)
    train.image_size = test.image_size = IMAGE_SIZE
    machine = f"{platform.machine()}, {torch.get_num_threads()} cores"
    print(f"{date.today()}, {machine}; {len(train):,} images to train, {len(test):,} to test")
    curves, rows = {}, []
    for name in options.models:
        if name == "original":
            curve, steps, model = run_original(train, test, 2 * options.seconds)
            data = ""
        else:
            make, part = RUNS[name]
            curve, steps, share, model = run_recipe(make, train, test, part * options.seconds)
            data = f"{share:.1%}"
        curves[name] = curve
        size = sum(p.numel() for p in model.parameters()) / 1e6
        cells = " | ".join(at(curve, mark) for mark in MARKS)
        rows.append(f"| {name} | {size:.2f} M | {steps:,} | {data} | {cells} |")
        print(rows[-1], flush=True)
        if options.json:
            with open(options.json, "w") as file:
                json.dump(curves, file)
    print("\n| model | parameters | steps | data |", " | ".join(f"{mark} s" for mark in MARKS), "|")
    print("|---" * (4 + len(MARKS)) + "|", *rows, sep="\n")
    if options.png:
        draw(curves, options.png)


if __name__ == "__main__":
    sys.exit(main())
