"""How fast is our CoAtNet beside timm's? Run by hand: python benchmarks/model_speed.py

Models with the same weights take turns in one process: ours, its `fused` copy, timm as it comes,
and timm in channels_last; with --compile, ours, the fused copy and timm by torch.compile, too. Each
round times every one of them once, in an order that moves on from round to round, so that a busy
machine slows all of them alike; the table shows medians over the rounds. A ratio above 1 means that
ours is faster.
"""

import argparse
import os
import platform
import statistics
import time

import timm
import torch
import torch.nn.functional as F

from coatnet import from_timm, fused

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


def build(
    name: str, image_size: int, batch_size: int, **options
) -> tuple[dict, dict, torch.Tensor]:
    """Models with equal weights by label, images for each, and targets for the training step."""
    reference = timm.create_model(name, img_size=image_size, **options)
    channels_last = timm.create_model(name, img_size=image_size, **options)
    channels_last.load_state_dict(reference.state_dict())
    channels_last.to(memory_format=torch.channels_last)
    ours = from_timm(reference)
    models = {
        "ours": ours,
        "fused": fused(ours),
        "timm": reference,
        "timm c.l.": channels_last,
    }
    images = torch.randn(batch_size, 3, image_size, image_size)
    inputs = dict.fromkeys(models, images)
    inputs["timm c.l."] = images.contiguous(memory_format=torch.channels_last)
    return models, inputs, torch.randint(reference.num_classes, (batch_size,))


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
    parser.add_argument("--compile", action="store_true", help="with torch.compile, beside timm's")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, "
        f"load {os.getloadavg()[0]:.1f}; "
        f"torch {torch.__version__}, timm {timm.__version__}, {arguments.rounds} rounds"
    )
    print("\nmilliseconds; then how many times as long as ours, and as the fused copy")
    for case in arguments.cases:
        models, inputs, targets = build(**CASES[case])
        if arguments.compile:
            labels = ("ours", "fused", "timm c.l.")
            models |= {f"{label}, compiled": torch.compile(models[label]) for label in labels}
            inputs |= {f"{label}, compiled": inputs[label] for label in labels}
        passes = {
            "forward": {label: forward_pass(m, inputs[label]) for label, m in models.items()},
            "training": {
                label: training_step(m, inputs[label], targets)
                for label, m in models.items()
                if "fused" not in label
            },
        }
        for title, runs in passes.items():
            show(f"{case}, {title}", measure(runs, arguments.rounds))


def show(title: str, seconds: dict[str, float]) -> None:
    """A line for each model: milliseconds, and the ratios to ours and to the fused copy."""
    print(title)
    for label, time_taken in seconds.items():
        ratios = [time_taken / seconds[ours] for ours in ("ours", "fused") if ours in seconds]
        shown = "".join(f"{ratio:>8.2f}" for ratio in ratios)
        print(f"    {label:<20}{time_taken * 1e3:>9.1f}{shown}", flush=True)


if __name__ == "__main__":
    main()
