"""Lesson 2's hybrid and its loop on real photographs.

python benchmarks/photographs.py [FOLDER] [--steps N]

FOLDER holds train/<class>/* and test/<class>/*. The README's figure is from CIFAR-10 as JPEG files,
which the course's developers keep in ../shared/data; without FOLDER that archive is used.
"""

import argparse
import platform
import sys
import tarfile
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from coatnet import CoAtNEt
from course.data import load_data
from course.training import evaluate, fit

ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "cifar10-images.tar.gz"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help=f"images (default: unpacks {ARCHIVE.name})")
    parser.add_argument("--steps", type=int, default=1500, help="batches of 64 (default: 1500)")
    parser.add_argument("--seeds", type=int, default=1, help="number of runs (default: 1)")
    options = parser.parse_args()
    if not options.folder and not ARCHIVE.exists():
        print(f"skipped: {ARCHIVE.name} is not here, and no folder of photographs was named")
        return
    with tempfile.TemporaryDirectory() as scratch:
        if not options.folder:
            with tarfile.open(ARCHIVE) as archive:
                archive.extractall(scratch, filter="data")
        try:
            train, test = load_data(options.folder or scratch, image_size=32)
        except (FileNotFoundError, ValueError) as error:
            sys.exit(str(error))
    print(f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} cores")
    print(f"{len(train):,} images to train, {len(test):,} to test, {len(train.classes)} classes")
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        model = CoAtNEt(
            32, 8, num_hiddens=128, num_heads=4, num_classes=len(train.classes), depth=4
        )
        started = time.perf_counter()
        fit(model, train, steps=options.steps, batch_size=64, lr=1e-3, seed=seed)
        seconds = time.perf_counter() - started
        accuracy = evaluate(model, test).accuracy
        print(
            f"seed {seed}: {accuracy:.1%} on held-out photographs after {seconds:.0f} s of training"
        )


if __name__ == "__main__":
    main()
