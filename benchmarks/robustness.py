"""Shift, occlusion, shuffled patches and resolution: what ViT, hybrid and staged withstand.

python benchmarks/robustness.py {shapetexture100,photographs} [FOLDER] [--seeds N]

Trains every model once a seed, for a number of steps that takes all of them about equally long, and
tests each on damaged test images without training it again. Amounts are pixels of the side given
in the table's head; photographs of another size are damaged in proportion. Prints means over the
seeds, with the smallest and the largest in brackets, in percent.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from datetime import date
from functools import partial

import photographs
import torch
import torch.nn.functional as F

from coatnet import CoAtNEt, CoAtNet, CoAtNetConfig
from course.data import load_data, shape_texture_accuracy
from course.robustness import at_size, occlude, shift, shuffle_patches
from course.training import fit, warmup_cosine
from vit import ViT

LESSON = CoAtNetConfig(stem_widths=(16, 16), depths=(1, 1, 2, 1), widths=(16, 36, 64, 128))
# Models like lesson 8's, trained longer: what makes each, its learning rate, its steps
LESSON_MODELS = {
    "ViT": (partial(ViT, 56, 8, 96, 4, 100, depth=3), 1e-3, 300),
    "hybrid": (partial(CoAtNEt, 56, 8, 64, 4, 100, depth=2), 2e-3, 400),
    "staged": (partial(CoAtNet, LESSON, 100, 56), 2e-3, 500),
}
TEST_IMAGES = 2000
PHOTOGRAPH_STEPS = {"ViT": 600, "hybrid": 1500, "staged": 1100}
# Pixels for an image of that side
AMOUNTS = {
    "shapetexture100": {
        "side": 56,
        "shift": (1, 2, 4, 6, 8, 12),
        "occluded square": (8, 16, 24, 32),
        "shuffled patches": (28, 14, 8),
        "resized": (40, 48, 64, 72, 80),
    },
    "photographs": {
        "side": 32,
        "shift": (1, 2, 4, 8),
        "occluded square": (4, 8, 12, 16),
        "shuffled patches": (16, 8, 4),
        "resized": (24, 40, 48, 64),
    },
}


def resize(images, side):
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


DAMAGE = {
    "shift": shift,
    "occluded square": occlude,
    "shuffled patches": shuffle_patches,
    "resized": resize,
}


@torch.no_grad()
def percent_right(model, images, targets, parts):
    """Of the damaged images: percent of right classes, or of right shapes and right textures."""
    if not isinstance(model, CoAtNet) and images.shape[-1] != image_size_of(model):
        model = at_size(model, images.shape[-1])
    predictions = torch.cat([model(batch).argmax(dim=1) for batch in images.split(250)])
    if parts:
        return [100 * share for share in shape_texture_accuracy(predictions, targets)]
    return [100 * (predictions == targets).float().mean().item()]


def image_size_of(model):
    return getattr(model, "patch_embedding", model).img_size


def trained(data, name, train, seed):
    """A model of that name, trained with that seed, and its image size."""
    torch.manual_seed(seed)
    if data == "shapetexture100":
        make, lr, steps = LESSON_MODELS[name]
        model, image_size = make(), 56
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
        recipe = {"optimizer": optimizer, "schedule": warmup_cosine}
    else:
        image_size, make = photographs.MODELS[name]
        model, steps = make(num_classes=len(train.classes)), PHOTOGRAPH_STEPS[name]
        recipe = photographs.recipe(name, model)
    fit(model, replace(train, image_size=image_size), steps=steps, seed=seed, quiet=True, **recipe)
    return model.cpu().eval(), image_size


def sweep(data, model, test, image_size):
    """{(damage, pixels): percent right}, undamaged images first."""
    test = replace(test, image_size=image_size)
    images, targets = test.normalise(test.images), test.targets
    parts = data == "shapetexture100"
    amounts = AMOUNTS[data]
    results = {("none", ""): percent_right(model, images, targets, parts)}
    for name, damage in DAMAGE.items():
        for pixels in amounts[name]:
            damaged = damage(images, round(pixels * image_size / amounts["side"]))
            results[name, pixels] = percent_right(model, damaged, targets, parts)
    return results


def in_words(values):
    return f"{statistics.mean(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=AMOUNTS)
    parser.add_argument("folder", nargs="?", help="photographs (default: unpacks the course's)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each model (default: 3)")
    options = parser.parse_args()
    if options.data == "shapetexture100":
        train, test = load_data("shapetexture100")
    else:
        train, test = photographs.load(options.folder)
    every = max(1, len(test) // TEST_IMAGES)  # in folders, images stand class by class
    test = replace(test, images=test.images[::every], targets=test.targets[::every])
    runs = {}
    for name in LESSON_MODELS:
        runs[name] = []
        for seed in range(options.seeds):
            model, image_size = trained(options.data, name, train, seed)
            runs[name].append(sweep(options.data, model, test, image_size))
            right = " / ".join(f"{v:.1f} %" for v in runs[name][-1]["none", ""])
            print(f"{name}, seed {seed}: {right} right", file=sys.stderr)
    side = AMOUNTS[options.data]["side"]
    columns = [f"{name} {part}" for name in runs for part in ("shape", "texture")]
    if options.data == "photographs":
        columns = list(runs)
    print(f"{date.today()}, {options.seeds} seeds, {len(test):,} test images\n")
    print(f"| damage, pixels of {side} | {' | '.join(columns)} |")
    print("|---" * (1 + len(columns)) + "|")
    for key in next(iter(runs.values()))[0]:
        cells = [
            in_words([run[key][part] for run in results])
            for results in runs.values()
            for part in range(len(results[0][key]))
        ]
        print(f"| {key[0]} {key[1]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
