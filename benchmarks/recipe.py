"""What each choice in the course's recipe for small photographs is worth: one change at a time.

python benchmarks/recipe.py [FOLDER] [--seconds N] [--only TEXT ...]

The recipe is the one of benchmarks/time_to_accuracy.py, whose images this uses. Each variant trains
for equally long, with one seed, so that differences below a percent or so are chance.
"""

import argparse
import platform
from dataclasses import replace
from datetime import date

import torch
from photographs import ARCHIVE, load
from time_to_accuracy import IMAGE_SIZE, WEIGHT_DECAY, recipe

from coatnet import CoAtNet
from course.augmentation import mixup, trivial_augment
from course.models import SMALL, make_optimizer
from course.training import evaluate, fit


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)


def adamw(lr):
    return lambda model: make_optimizer(model, lr, WEIGHT_DECAY)


# What changes: fields of the model, the image size, the optimiser, and options of `fit`
VARIANTS = {
    "the recipe": {},
    "half as wide": {"config": {"widths": (24, 48, 96, 128)}},
    "half as deep": {"config": {"depths": (1, 1, 1, 1)}},
    "as wide, twice as deep": {"config": {"depths": (2, 3, 4, 2)}},
    "C-C-T-T": {"config": {"block_types": ("C", "C", "T", "T")}},
    "C-C-C-C": {"config": {"block_types": ("C", "C", "C", "C")}},
    "stem of stride 2": {"config": {"stem_stride": 2}},
    "stem of stride 2, 64 px": {"config": {"stem_stride": 2}, "image_size": 64},
    "48 px": {"image_size": 48},
    "stride in the depthwise convolution": {"config": {"stride_in": "depthwise"}},
    "AdamW at 1e-3": {"optimizer": adamw(1e-3)},
    "AdamW at 4e-3": {"optimizer": adamw(4e-3)},
    "SGD, Nesterov, at 0.05": {"optimizer": sgd},
    "constant learning rate": {"schedule": None},
    "batches of 32": {"batch_size": 32},
    "batches of 128": {"batch_size": 128},
    "no augmentation": {"augment": None},
    "TrivialAugment": {"augment": trivial_augment},
    "mixup": {"mix": mixup},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "no average": {"average": None},
    "float32": {"precision": "fp32"},
}


def run(train, test, seconds, config=(), image_size=IMAGE_SIZE, optimizer=None, **options):
    """(share of right answers, steps, parameters) of one variant."""
    torch.manual_seed(0)
    model = CoAtNet(replace(SMALL, **dict(config)), len(train.classes), image_size)
    options = recipe(model) | options
    if optimizer is not None:
        options["optimizer"] = optimizer(model)
    train, test = (replace(data, image_size=image_size) for data in (train, test))
    history = fit(model, train, seconds=seconds, quiet=True, **options)
    tried = model if options["average"] is None else options["average"].model
    accuracy = evaluate(tried, test, quiet=True).accuracy
    return accuracy, len(history.losses), sum(p.numel() for p in model.parameters())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help=f"images (default: unpacks {ARCHIVE.name})")
    parser.add_argument("--seconds", type=float, default=90, help="for each run (default: 90)")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    train, test = load(options.folder)
    print(f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} cores\n")
    print(
        f"| one change | parameters | steps in {options.seconds:.0f} s | right |\n|---|---|---|---|"
    )
    for name in options.only:
        accuracy, steps, size = run(train, test, options.seconds, **VARIANTS[name])
        print(f"| {name} | {size / 1e6:.2f} M | {steps:,} | {accuracy:.1%} |", flush=True)


if __name__ == "__main__":
    main()
