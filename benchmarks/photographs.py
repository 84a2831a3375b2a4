"""ViT, hybrid, staged CoAtNet and the original setting on real photographs, for equal time.

python benchmarks/photographs.py [FOLDER] [--seconds N] [--models ...] [--seeds N]

FOLDER holds train/<class>/* and test/<class>/*. The README's figures are from CIFAR-10 as JPEG
files, which the course's developers keep in ../shared/data; without FOLDER that archive is used.
Seconds count training alone, whole steps from the batch to the optimiser.
"""

import argparse
import platform
import statistics
import sys
import tarfile
import tempfile
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import torch

from coatnet import CoAtNEt, CoAtNet, CoAtNetConfig
from course.augmentation import flip_and_crop
from course.data import load_data
from course.models import make_optimizer
from course.training import evaluate, fit, warmup_cosine
from vit import ViT

ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "cifar10-images.tar.gz"
STAGED = CoAtNetConfig(
    depths=(1, 1, 2, 1), widths=(32, 64, 128, 256), stem_widths=(32, 32), mlp_head=False
)
# Models of about a million parameters, at the image size that suits them; the last is lesson 2's
MODELS = {
    "ViT": (32, partial(ViT, 32, 4, num_hiddens=128, num_heads=4, depth=4)),
    "hybrid": (32, partial(CoAtNEt, 32, 8, num_hiddens=128, num_heads=4, depth=4)),
    "staged": (64, partial(CoAtNet, STAGED, image_size=64)),
    "original": (56, partial(CoAtNEt, 56, 7, num_hiddens=512, num_heads=8, depth=6)),
}


def recipe(name, model):
    """The options of `fit`: the original setting for the original, and one recipe for the rest."""
    if name == "original":
        return {"batch_size": 32, "lr": 3e-4}
    return {
        "batch_size": 64,
        "optimizer": make_optimizer(model, lr=2e-3, weight_decay=0.05),
        "schedule": warmup_cosine,
        "augment": flip_and_crop,
    }


def load(folder):
    """The photographs, decoded once at their own size. Without any, says so and ends."""
    if not folder and not ARCHIVE.exists():
        print(f"skipped: {ARCHIVE.name} is not here, and no folder of photographs was named")
        sys.exit()
    with tempfile.TemporaryDirectory() as scratch:
        if not folder:
            with tarfile.open(ARCHIVE) as archive:
                archive.extractall(scratch, filter="data")
        try:
            return load_data(folder or scratch, image_size=64)
        except (FileNotFoundError, ValueError) as error:
            sys.exit(str(error))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help=f"images (default: unpacks {ARCHIVE.name})")
    parser.add_argument("--seconds", type=float, default=300, help="for each run (default: 300)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=1, help="number of runs (default: 1)")
    options = parser.parse_args()
    train, test = load(options.folder)
    print(f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} cores")
    print(f"{len(train):,} images to train, {len(test):,} to test, {len(train.classes)} classes")
    rows = []
    for name in options.models:
        image_size, make = MODELS[name]
        accuracies = []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = make(num_classes=len(train.classes))
            history = fit(
                model,
                replace(train, image_size=image_size),
                seconds=options.seconds,
                seed=seed,
                **recipe(name, model),
            )
            accuracies.append(evaluate(model, replace(test, image_size=image_size)).accuracy)
            print(f"{name}, seed {seed}: {accuracies[-1]:.1%} right on held-out photographs")
        count = sum(p.numel() for p in model.parameters()) / 1e6
        spread = f"{min(accuracies):.1%} to {max(accuracies):.1%}"
        mean = f"{statistics.mean(accuracies):.1%}" + (f" ({spread})" if options.seeds > 1 else "")
        rows.append(
            f"| {name} | {count:.2f} M | {image_size} px | {len(history.losses):,} | {mean} |"
        )
    print(f"\n| model | parameters | images | steps in {options.seconds:.0f} s | right |")
    print("|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
