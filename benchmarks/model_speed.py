"""How fast is our CoAtNet beside timm's? Run by hand: python benchmarks/model_speed.py

Three models with the same weights take turns in one process: ours, timm as it comes, and timm in
channels_last. Each round times every one of them once, in an order that moves on from round to
round, so that a busy machine slows all of them alike; the table shows medians over the rounds. A
ratio above 1 means that ours is faster.
"""

import argparse
import os
import platform
import statistics
import time

import timm
import torch
import torch.nn.functional as F

from coatnet import from_timm

CASES = {
    "coatnet_0": {"name": "coatnet_0_224", "image_size": 224, "batch_size": 4},
    "nano_rw": {"name": "coatnet_nano_rw_224", "image_size": 224, "batch_size": 4},
    "small": {
        "name": "coatnet_0_224",
        "image_size": 64,
        "batch_size": 64,
        "num_classes": 100,
        "depths": (1, 1, 2, 1),
        "embed_dim": (32, 64, 128, 256),
        "stem_width": 32,
        "head_hidden_size": 256,
    },
}


def build(name, image_size, batch_size, **options):
    """{label: (model, images)} with equal weights, and labels for the training step."""
    reference = timm.create_model(name, img_size=image_size, **options)
    channels_last = timm.create_model(name, img_size=image_size, **options)
    channels_last.load_state_dict(reference.state_dict())
    channels_last.to(memory_format=torch.channels_last)
    images = torch.randn(batch_size, 3, image_size, image_size)
    targets = torch.randint(reference.num_classes, (batch_size,))
    models = {
        "ours": (from_timm(reference), images),
        "timm": (reference, images),
        "timm channels_last": (
            channels_last,
            images.contiguous(memory_format=torch.channels_last),
        ),
    }
    return models, targets


def forward_pass(model, images):
    """A function that runs the model in eval mode, without gradients."""

    def run():
        if model.training:
            model.eval()
        with torch.no_grad():
            model(images)

    return run


def training_step(model, images, targets):
    """A function that does one whole step: forward, loss, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def run():
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()

    return run


def measure(runs, rounds, warmup=2):
    """{label: median seconds} of functions that take turns."""
    for _ in range(warmup):
        for run in runs.values():
            run()
    seconds = {label: [] for label in runs}
    labels = list(runs)
    for i in range(rounds):
        shift = i % len(labels)
        for label in labels[shift:] + labels[:shift]:
            start = time.perf_counter()
            runs[label]()
            seconds[label].append(time.perf_counter() - start)
    return {label: statistics.median(times) for label, times in seconds.items()}


def main():
    parser = argparse.ArgumentParser(
        description="Speed of our CoAtNet beside timm's, forward and training step."
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default: 15)")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="(default: as torch has it)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, "
        f"load {os.getloadavg()[0]:.1f}; "
        f"torch {torch.__version__}, timm {timm.__version__}, {arguments.rounds} rounds"
    )
    print(
        f"\n{'model':<12}{'pass':<10}{'ours':>9}{'timm':>9}{'timm c.l.':>11}"
        f"{'vs timm':>9}{'vs c.l.':>9}   (medians in ms; ratios)"
    )
    for case in arguments.cases:
        models, targets = build(**CASES[case])
        passes = {
            "forward": {label: forward_pass(*pair) for label, pair in models.items()},
            "training": {label: training_step(*pair, targets) for label, pair in models.items()},
        }
        for title, runs in passes.items():
            ours, plain, last = measure(runs, arguments.rounds).values()
            print(
                f"{case:<12}{title:<10}{ours * 1e3:>9.1f}{plain * 1e3:>9.1f}{last * 1e3:>11.1f}"
                f"{plain / ours:>9.2f}{last / ours:>9.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
